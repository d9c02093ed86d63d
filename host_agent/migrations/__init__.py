"""Alembic migrations of the Key Database."""

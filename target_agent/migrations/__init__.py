"""Alembic migrations of the Target's database."""

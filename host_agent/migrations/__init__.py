"""Alembic migrations of the Key Database."""

NEWEST = "0010"
"""The newest revision; a database that has it is used as it is."""

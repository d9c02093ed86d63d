"""Alembic migrations of the Key Database."""

NEWEST = "0009"
"""The newest revision; a database that has it is used as it is."""

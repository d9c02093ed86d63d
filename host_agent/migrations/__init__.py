"""Alembic migrations of the Key Database."""

NEWEST = "0011"
"""The newest revision; a database that has it is used as it is."""

"""Alembic migrations of the Target's database."""

NEWEST = "0006"
"""The newest revision; a database that has it is used as it is."""

"""Alembic migrations of the Target's database."""

NEWEST = "0005"
"""The newest revision; a database that has it is used as it is."""

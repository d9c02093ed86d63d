"""A database that refuses to forget which pairs were revoked before they were recorded."""

from alembic import op

from carnet.database.append_only import forbid_deletion

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the trigger; no row is looked at."""
    forbid_deletion(op.get_bind(), "revoked_early")

"""A database that refuses to delete key pairs and the requests that spent them."""

from alembic import op

from carnet.database.append_only import forbid_deletion

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the triggers; no row is looked at."""
    for table in ("key_pairs", "requests"):
        forbid_deletion(op.get_bind(), table)

"""What a key pair was used for is looked up with each request."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Index it; not as unique, for what is recorded stays, whatever it is."""
    op.create_index("by_key_pair", "tunnels", ["key_id"])

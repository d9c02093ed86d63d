"""Custody `split`: which key of the Host a pair's requests are sealed to; nothing to destroy."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column; leave pairs whose private key was never here out of the index."""
    op.add_column("key_pairs", sa.Column("host_key_id", sa.LargeBinary))
    op.drop_index("keys_to_destroy", "key_pairs")
    condition = sa.text("state = 'invalid' AND custody = 'paired' AND key_destroyed_at ISNULL")
    op.create_index(
        "keys_to_destroy",
        "key_pairs",
        ["state"],
        sqlite_where=condition,
        postgresql_where=condition,
    )

"""Pairs that are revoked before they are known, and which these are of an import under way."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table, and the column."""
    op.add_column("imports", sa.Column("key_ids", sa.LargeBinary))
    op.create_table(
        "revoked_early",
        sa.Column("key_id", sa.LargeBinary, primary_key=True),
        sa.Column(
            "revoked_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("revoked_by", sa.Text),
    )

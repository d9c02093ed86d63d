"""Imports that are under way, for whoever revokes meanwhile."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_MOMENT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table; an import that an older version was cut off in begins anew."""
    op.create_table(
        "imports",
        sa.Column("batch_id", sa.LargeBinary, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("token_serial", sa.Text, nullable=False),
        sa.Column("pairs", sa.Integer, nullable=False),
        sa.Column("begun_at", _MOMENT, nullable=False),
        sa.Column("revoked_at", _MOMENT),
        sa.Column("reason", sa.Text),
        sa.Column("why", sa.Text),
        sa.Column("revoked_by", sa.Text),
    )

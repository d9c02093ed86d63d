"""Signed heads of the accounts, and a database that refuses to change what is written there."""

import sqlalchemy as sa
from alembic import op

from carnet.database.append_only import forbid_changes

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table of heads, and the triggers."""
    op.create_table(
        "audit_heads",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("signed", sa.LargeBinary, nullable=False),
    )
    for table in ("audit", "audit_heads"):
        forbid_changes(op.get_bind(), table)

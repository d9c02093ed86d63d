"""On which HSMs each private key is, for Hosts with an HSM each."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table; of pairs that are there already nothing is known, and so they stay."""
    op.create_table(
        "key_copies",
        sa.Column("key_id", sa.LargeBinary, primary_key=True),
        sa.Column("hsm_serial", sa.Text, primary_key=True),
        sa.Column("destroyed_at", sa.BigInteger().with_variant(sa.Integer(), "sqlite")),
    )

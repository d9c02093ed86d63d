"""Private keys that are kept wrapped here, and the keys of their batches on the HSM."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

moment = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Say of each pair where its private key is; add the tables."""
    op.add_column(
        "key_pairs", sa.Column("key_store", sa.Text, nullable=False, server_default="token")
    )
    op.create_table(
        "wrapped_keys",
        sa.Column("key_id", sa.LargeBinary, sa.ForeignKey("key_pairs.key_id"), primary_key=True),
        sa.Column("kek_id", sa.LargeBinary, primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_wrapped_keys_kek_id", "wrapped_keys", ["kek_id"])
    op.create_table(
        "batch_keys",
        sa.Column("kek_id", sa.LargeBinary, primary_key=True),
        sa.Column("token_serial", sa.Text, primary_key=True),
        sa.Column("batch_id", sa.LargeBinary, nullable=False),
        sa.Column("imported_at", moment),
        sa.Column("destroyed_at", moment),
    )
    condition = sa.text("destroyed_at ISNULL")
    op.create_index(
        "batch_keys_kept",
        "batch_keys",
        ["token_serial"],
        sqlite_where=condition,
        postgresql_where=condition,
    )

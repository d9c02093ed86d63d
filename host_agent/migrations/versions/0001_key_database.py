"""The Key Database as it began."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

moment = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "key_pairs",
        sa.Column("key_id", sa.LargeBinary, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False, index=True),
        sa.Column("token_serial", sa.Text, nullable=False, index=True),
        sa.Column("batch_id", sa.LargeBinary, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("custody", sa.Text, nullable=False),
        sa.Column("suite", sa.Integer, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("not_after", moment),
        sa.Column("imported_at", moment, nullable=False),
        sa.Column("invalid_at", moment),
        sa.Column("key_destroyed_at", moment),
        sa.CheckConstraint("state IN ('valid', 'invalid')"),
        sa.CheckConstraint("(state = 'invalid') = (reason IS NOT NULL)"),
    )
    op.create_index(
        "keys_to_destroy",
        "key_pairs",
        ["state"],
        sqlite_where=sa.text("state = 'invalid' AND key_destroyed_at IS NULL"),
        postgresql_where=sa.text("state = 'invalid' AND key_destroyed_at IS NULL"),
    )
    op.create_table(
        "requests",
        sa.Column("key_id", sa.LargeBinary, sa.ForeignKey("key_pairs.key_id"), primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("request_id", sa.LargeBinary, nullable=False, index=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("objective_id", sa.Integer, nullable=False),
        sa.Column("evidence", sa.LargeBinary, nullable=False),
        sa.Column("spent_at", moment, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("response", sa.LargeBinary),
        sa.Column("answered_at", moment),
        sa.Column("ended_at", moment),
        sa.Column("end_reason", sa.Text),
    )
    op.create_table(
        "cursors",
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("number", moment, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", moment, primary_key=True, autoincrement=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("facts", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )

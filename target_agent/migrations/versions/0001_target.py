"""The Target's database as it began."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _access()
    _tunnels()
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("facts", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )


def _access() -> None:
    op.create_table(
        "members",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("since", sa.Integer, nullable=False),
    )
    op.create_table(
        "grants",
        sa.Column(
            "user_id",
            sa.Text,
            sa.ForeignKey("members.user_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("objective_id", sa.Integer, primary_key=True),
        sa.Column("network", sa.Text, primary_key=True),
        sa.Column("lifetime", sa.Integer, nullable=False),
    )


def _tunnels() -> None:
    op.create_table(
        "tunnels",
        sa.Column("request_id", sa.LargeBinary, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False, index=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("suite", sa.Integer, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("evidence", sa.LargeBinary, nullable=False),
        sa.Column("evidence_digest", sa.LargeBinary, nullable=False),
        sa.Column("objective_id", sa.Integer, nullable=False),
        sa.Column("networks", sa.Text, nullable=False),
        sa.Column("virtual_address", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("answered_at", sa.Integer, nullable=False),
        sa.Column("established_at", sa.Integer),
        sa.Column("expires_at", sa.Integer),
        sa.Column("ended_at", sa.Integer),
        sa.Column("end_reason", sa.Text),
        sa.Column("ended_number", sa.Integer, unique=True),
        sa.CheckConstraint("state IN ('prepared', 'established', 'ended', 'refused')"),
        sa.CheckConstraint("(state = 'ended') = (ended_number IS NOT NULL)"),
        sa.CheckConstraint("(state = 'refused') = (virtual_address IS NULL)"),
    )
    op.create_index(
        "one_live_tunnel_per_address",
        "tunnels",
        ["virtual_address"],
        unique=True,
        sqlite_where=sa.text("state IN ('prepared', 'established')"),
    )
    op.create_index("ended_by_host", "tunnels", ["host", "ended_number"])

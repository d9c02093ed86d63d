"""Tunnels without a virtual address: in transport mode, and without IPsec."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table of tunnels anew, as SQLite must to change a constraint."""
    op.rename_table("tunnels", "tunnels_before")
    for index in ("ix_tunnels_user_id", "one_live_tunnel_per_address", "ended_by_host"):
        op.drop_index(index)
    columns = _tunnels()
    names = ", ".join(column.name for column in columns)
    op.execute(f"INSERT INTO tunnels ({names}) SELECT {names} FROM tunnels_before")  # noqa: S608
    op.drop_table("tunnels_before")


def _tunnels() -> list[sa.Column[Any]]:
    columns: list[sa.Column[Any]] = [
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
    ]
    op.create_table(
        "tunnels",
        *columns,
        sa.CheckConstraint("state IN ('prepared', 'established', 'ended', 'refused')"),
        sa.CheckConstraint("(state = 'ended') = (ended_number IS NOT NULL)"),
        sa.CheckConstraint("state <> 'refused' OR virtual_address IS NULL"),
    )
    op.create_index(
        "one_live_tunnel_per_address",
        "tunnels",
        ["virtual_address"],
        unique=True,
        sqlite_where=sa.text("state IN ('prepared', 'established')"),
    )
    op.create_index("ended_by_host", "tunnels", ["host", "ended_number"])
    return columns

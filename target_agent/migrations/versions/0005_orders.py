"""Orders to end tunnels that no record is there for yet."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table: one request's tunnel is to end, or all of one user's."""
    op.create_table(
        "orders",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("request_id", sa.LargeBinary),
        sa.Column("user_id", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("ordered_at", sa.Integer, nullable=False),
        sa.CheckConstraint("(request_id IS NULL) <> (user_id IS NULL)"),
    )

"""By which tunnel a Host knows a Target's list of ended tunnels again."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column; it stays empty until the Target's next tunnel has ended."""
    op.add_column("cursors", sa.Column("request_id", sa.LargeBinary))

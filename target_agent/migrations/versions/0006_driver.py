"""Which IPsec driver each tunnel was made with."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; of what was made before nothing tells."""
    op.add_column("tunnels", sa.Column("driver", sa.Text))

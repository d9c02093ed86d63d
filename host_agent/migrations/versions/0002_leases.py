"""Leases on requests, tunnels that shall end, and an index for whatever is asked often."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

moment = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the columns and the indexes."""
    for column in (
        sa.Column("holder", sa.Text),
        sa.Column("lease_until", moment),
        sa.Column("revoked_at", moment),
        sa.Column("end_asked_at", moment),
    ):
        op.add_column("requests", column)
    _index("pairs_that_expire", "key_pairs", "not_after", "state = 'valid' AND not_after NOTNULL")
    _index("requests_unanswered", "requests", "lease_until", "outcome ISNULL")
    _index("responses_kept", "requests", "answered_at", "response NOTNULL")
    _index("tunnels_to_end", "requests", "revoked_at", "revoked_at NOTNULL AND end_asked_at ISNULL")


def _index(name: str, table: str, column: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)

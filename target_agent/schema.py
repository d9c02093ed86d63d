"""The Target's tables; no secret is in any of them.

The answer to a request holds the session key as Target sealed it to the Client's
ephemeral key, which Target cannot open again.
"""

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from carnet.audit import audit_table, heads_table

metadata = MetaData()

members = Table(
    "members",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("since", Integer, nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("user_id", Text, ForeignKey("members.user_id", ondelete="CASCADE"), primary_key=True),
    Column("objective_id", Integer, primary_key=True),
    Column("network", Text, primary_key=True),
    Column("lifetime", Integer, nullable=False),
)
"""The access control list: who may have which objective, to where, for how many seconds."""

tunnels = Table(
    "tunnels",
    metadata,
    Column("request_id", LargeBinary, primary_key=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("host", Text, nullable=False),
    Column("key_id", LargeBinary, nullable=False),
    Column("suite", Integer, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("evidence_digest", LargeBinary, nullable=False),
    Column("objective_id", Integer, nullable=False),
    Column("networks", Text, nullable=False),
    Column("virtual_address", Text),
    Column("state", Text, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("answered_at", Integer, nullable=False),
    Column("established_at", Integer),
    Column("expires_at", Integer),
    Column("ended_at", Integer),
    Column("end_reason", Text),
    Column("ended_number", Integer, unique=True),
    Column("driver", Text),
)
"""One row a request whose evidence held; networks are separated by spaces.

`driver` is the name of the one that a granted tunnel was made with, NULL where none was.
"""
Index(
    "one_live_tunnel_per_address",
    tunnels.c.virtual_address,
    unique=True,
    sqlite_where=tunnels.c.state.in_(("prepared", "established")),
)
Index("by_key_pair", tunnels.c.key_id)
Index("ended_by_host", tunnels.c.host, tunnels.c.ended_number)

orders = Table(
    "orders",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("request_id", LargeBinary),
    Column("user_id", Text),
    Column("reason", Text, nullable=False),
    Column("ordered_at", Integer, nullable=False),
)
"""Operators' orders to end tunnels, until the service has obeyed them: of one request, or user."""

audit = audit_table(metadata)
audit_heads = heads_table(metadata)

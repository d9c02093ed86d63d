"""The Key Database's tables.

A pair is valid or invalid, as in the paper; an invalid one stays known for ever.
"""

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text

from carnet.audit import audit_table

metadata = MetaData()

key_pairs = Table(
    "key_pairs",
    metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("user_id", Text, nullable=False, index=True),
    Column("token_serial", Text, nullable=False, index=True),
    Column("batch_id", LargeBinary, nullable=False),
    Column("label", Text, nullable=False),
    Column("custody", Text, nullable=False),
    Column("suite", Integer, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("not_after", Integer),
    Column("imported_at", Integer, nullable=False),
    Column("invalid_at", Integer),
    Column("key_destroyed_at", Integer),
)
Index(
    "keys_to_destroy",
    key_pairs.c.state,
    sqlite_where=(key_pairs.c.state == "invalid") & key_pairs.c.key_destroyed_at.is_(None),
)

requests = Table(
    "requests",
    metadata,
    Column("key_id", LargeBinary, ForeignKey("key_pairs.key_id"), primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("request_id", LargeBinary, nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column("objective_id", Integer, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("spent_at", Integer, nullable=False),
    Column("outcome", Text),
    Column("response", LargeBinary),
    Column("answered_at", Integer),
    Column("ended_at", Integer),
    Column("end_reason", Text),
)

cursors = Table(
    "cursors",
    metadata,
    Column("target", Text, primary_key=True),
    Column("number", Integer, nullable=False),
)
"""How far the Host has read each Target's list of ended tunnels."""

audit = audit_table(metadata)

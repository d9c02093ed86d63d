"""The Key Database's tables.

A pair is valid or invalid, as in the paper; an invalid one stays known for ever.
"""

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, MetaData, Table, Text

from carnet.audit import audit_table, heads_table
from carnet.database.sql import MOMENT, partial_index

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
    Column("host_key_id", LargeBinary),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("not_after", MOMENT),
    Column("imported_at", MOMENT, nullable=False),
    Column("invalid_at", MOMENT),
    Column("key_destroyed_at", MOMENT),
    Column("key_store", Text, nullable=False, server_default="token"),
)
"""`host_key_id` names, in custody `split`, the Host's key that requests are sealed to."""
partial_index(
    "keys_to_destroy",
    key_pairs.c.state,
    (key_pairs.c.state == "invalid")
    & (key_pairs.c.custody == "paired")
    & key_pairs.c.key_destroyed_at.is_(None),
)
partial_index(
    "pairs_that_expire",
    key_pairs.c.not_after,
    (key_pairs.c.state == "valid") & key_pairs.c.not_after.is_not(None),
)

key_copies = Table(
    "key_copies",
    metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("hsm_serial", Text, primary_key=True),
    Column("destroyed_at", MOMENT),
)
"""Which HSM holds, or held, the private key of a pair; written before the key is stored."""

requests = Table(
    "requests",
    metadata,
    Column("key_id", LargeBinary, ForeignKey("key_pairs.key_id"), primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("request_id", LargeBinary, nullable=False, index=True),
    Column("target", Text, nullable=False),
    Column("objective_id", Integer, nullable=False),
    Column("evidence", LargeBinary, nullable=False),
    Column("spent_at", MOMENT, nullable=False),
    Column("outcome", Text),
    Column("response", LargeBinary),
    Column("answered_at", MOMENT),
    Column("ended_at", MOMENT),
    Column("end_reason", Text),
    Column("holder", Text),
    Column("lease_until", MOMENT),
    Column("revoked_at", MOMENT),
    Column("end_asked_at", MOMENT),
)
"""One row for each pair that was spent.

While a request has no answer, `holder` names the process of the Host that works on
it, until `lease_until` and no longer. `revoked_at` says that the operator wants its
tunnel ended, `end_asked_at` that Target has been told.
"""
partial_index("requests_unanswered", requests.c.lease_until, requests.c.outcome.is_(None))
partial_index("responses_kept", requests.c.answered_at, requests.c.response.is_not(None))
partial_index(
    "tunnels_to_end",
    requests.c.revoked_at,
    requests.c.revoked_at.is_not(None) & requests.c.end_asked_at.is_(None),
)

wrapped_keys = Table(
    "wrapped_keys",
    metadata,
    Column("key_id", LargeBinary, ForeignKey("key_pairs.key_id"), primary_key=True),
    Column("kek_id", LargeBinary, primary_key=True, index=True),
    Column("wrapped", LargeBinary, nullable=False),
)
"""Private keys, each wrapped under the key-encryption key (KEK) of its batch.

The burn deletes them. A pair has several where its batch was made for several HSMs.
"""

batch_keys = Table(
    "batch_keys",
    metadata,
    Column("kek_id", LargeBinary, primary_key=True),
    Column("token_serial", Text, primary_key=True),
    Column("batch_id", LargeBinary, nullable=False),
    Column("imported_at", MOMENT),
    Column("destroyed_at", MOMENT),
)
"""The KEKs, one row for each HSM token that holds one.

`imported_at` is empty while an import is under way, or was cut off: until then a KEK is
not taken for one that no pair needs any more.
"""
partial_index("batch_keys_kept", batch_keys.c.token_serial, batch_keys.c.destroyed_at.is_(None))

imports = Table(
    "imports",
    metadata,
    Column("batch_id", LargeBinary, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("token_serial", Text, nullable=False),
    Column("pairs", Integer, nullable=False),
    Column("key_ids", LargeBinary),
    Column("begun_at", MOMENT, nullable=False),
    Column("revoked_at", MOMENT),
    Column("reason", Text),
    Column("why", Text),
    Column("revoked_by", Text),
)
"""The imports that are under way, and those that were revoked as they were.

A row goes with the transaction that records the pairs, unless it says that they are revoked.
`key_ids` are those of its pairs, one after the other; an import from before this column has none.
"""

revoked_early = Table(
    "revoked_early",
    metadata,
    Column("key_id", LargeBinary, primary_key=True),
    Column("revoked_at", MOMENT, nullable=False),
    Column("reason", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("revoked_by", Text),
)
"""Pairs that were revoked while an import was about to bring them.

They stay here: whatever brings one, now or later, it is never valid.
"""

cursors = Table(
    "cursors",
    metadata,
    Column("target", Text, primary_key=True),
    Column("number", MOMENT, nullable=False),
    Column("request_id", LargeBinary),
)
"""How far the Host has read each Target's list of ended tunnels.

`number` and `request_id` are those of the last one: a Target that has no such one has
another list. A Host from before this column does not know which tunnel that was.
"""

audit = audit_table(metadata)
audit_heads = heads_table(metadata)

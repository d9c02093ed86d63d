"""Imports that are under way: a revocation concerns what they are about to bring, too.

An import is written down before anything of it is kept, and forgotten with the
transaction that records its pairs. Whoever revokes meanwhile, by user, token or key_id, notes
that here, and the pairs are recorded as invalid, by whatever batch they come: a mint writes one
for each HSM. One that was cut off is under way until its batch is imported again or the operator
gives it up; what was revoked stays so for ever.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import cast

from sqlalchemy import Connection, LargeBinary, bindparam, delete, exists, func, select, update

from carnet.database.sql import in_pieces, now, upsert
from carnet.errors import UsageError
from carnet.portions import batched
from carnet.wire.keys import KEY_ID_LENGTH
from host_agent.keydb.records import Reason, Revocation
from host_agent.keydb.store import Store
from host_agent.schema import imports as _imports
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import revoked_early as _early

_NAMED_BY = {"user_id", "token_serial"}
"""What all pairs of a batch have in common."""
_OPEN = _imports.c.revoked_at.is_(None)
_AT_ONCE = 500
"""Keys that one statement names; SQLite takes no more than some thousands of parameters."""

_SOME_NAMED = select(
    func.substr(_imports.c.key_ids, bindparam("start"), _AT_ONCE * KEY_ID_LENGTH, type_=LargeBinary)
).where(_imports.c.batch_id == bindparam("batch"))


class UnderWay(Store):
    """Which imports have begun and have not recorded their pairs."""

    def begin_import(
        self, batch_id: bytes, user_id: str, token_serial: str, key_ids: Iterable[bytes]
    ) -> bool:
        """Write down that an import begins; False if it has begun before, and was cut off."""
        row = {"batch_id": batch_id, "user_id": user_id, "token_serial": token_serial}
        joined = _joined(key_ids)
        named = {"pairs": len(joined) // KEY_ID_LENGTH, "key_ids": joined}
        with self._writing() as connection:
            begun = upsert(connection, _imports).values(begun_at=now(), **named, **row)
            new = begun.on_conflict_do_nothing().returning(_imports.c.batch_id)
            if connection.scalar(new) is not None:
                return True
            this = _imports.c.batch_id == batch_id
            connection.execute(update(_imports).where(this, _OPEN).values(**named))
        return False

    def revoke_imports(self, revocation: Revocation, **which: object) -> int:
        """Have no pair become valid that an import under way is about to record.

        By user, token or key_id; returns how many pairs that are, those that were revoked
        before and are not recorded included: the same again says the same. Call it before
        the pairs that are known are revoked: what is recorded in between is among these.
        """
        with self._writing() as connection:
            if which.keys() <= _NAMED_BY:
                return _revoke_whole(connection, revocation, which)
            return _revoke_named(connection, revocation, _key_ids(which["key_id"]))

    def forget_import(self, batch_id: bytes) -> None:
        """Say that an import was refused, and changed nothing; one that was revoked stays so."""
        with self._writing() as connection:
            connection.execute(delete(_imports).where(_imports.c.batch_id == batch_id, _OPEN))

    def forget_imports(self) -> None:
        """Say that those that were cut off are given up; for whom no import runs beside."""
        with self._writing() as connection:
            connection.execute(delete(_imports).where(_OPEN))

    def revocation_of(self, batch_id: bytes) -> Revocation | None:
        """Return what revoked the pairs of a batch while it was imported."""
        with self._reading.begin() as connection:
            return _revocation_of(connection, batch_id)

    def revoked_early(self, batch_id: bytes) -> int:
        """Return how many pairs of a batch were revoked before they were recorded."""
        early = select(func.count()).join(_early, _early.c.key_id == _pairs.c.key_id)
        query = early.select_from(_pairs).where(_pairs.c.batch_id == batch_id)
        with self._reading.begin() as connection:
            return connection.scalar(query) or 0


def revocations_of(
    connection: Connection, key_ids: Collection[bytes]
) -> dict[Revocation, list[bytes]]:
    """Return which of these pairs were revoked before they are recorded, and by what."""
    columns = (_early.c.why, _early.c.reason, _early.c.revoked_by, _early.c.key_id)
    query = select(*columns).where(_early.c.key_id.in_(key_ids))
    revoked: dict[Revocation, list[bytes]] = defaultdict(list)
    for row in connection.execute(query):
        revoked[_revocation(row.why, row.reason, row.revoked_by)].append(row.key_id)
    return dict(revoked)


def _revoke_whole(
    connection: Connection, revocation: Revocation, which: Mapping[str, object]
) -> int:
    concerned = [_imports.c[column] == value for column, value in which.items()]
    revoked = update(_imports).where(_OPEN, *concerned)
    connection.execute(revoked.values(revoked_at=now(), **_told(revocation)))
    recorded = exists().where(
        _pairs.c.batch_id == _imports.c.batch_id,
        *(_pairs.c[column] == value for column, value in which.items()),
    )
    columns = (_imports.c.batch_id, _imports.c.pairs, _imports.c.key_ids.is_(None).label("unnamed"))
    query = select(*columns).where(~recorded, *concerned)
    brought: set[bytes] = set()
    unnamed = 0
    for batch in list(in_pieces(connection, query)):
        brought.update(_named_by(connection, batch.batch_id))
        unnamed += batch.pairs if batch.unnamed else 0
    return unnamed + _revoke_early(connection, revocation, brought)


def _key_ids(named: object) -> set[bytes]:
    return set(named) if isinstance(named, list) else {cast("bytes", named)}


def _revoke_named(connection: Connection, revocation: Revocation, key_ids: set[bytes]) -> int:
    brought: set[bytes] = set()
    for batch in list(in_pieces(connection, select(_imports.c.batch_id))):
        brought.update(key_ids.intersection(_named_by(connection, batch.batch_id)))
    return _revoke_early(connection, revocation, brought)


def _named_by(connection: Connection, batch_id: bytes) -> Iterator[bytes]:
    """Yield the key_ids that an import has named, some at a time, as in_pieces() does."""
    start = 1
    while some := connection.scalar(_SOME_NAMED, {"batch": batch_id, "start": start}):
        yield from _cut(some)
        start += len(some)


def _revoke_early(connection: Connection, revocation: Revocation, key_ids: set[bytes]) -> int:
    """Have those of these pairs that are not recorded never be valid; return how many."""
    revoked = 0
    for some in batched(sorted(key_ids), _AT_ONCE):
        known = select(_pairs.c.key_id).where(_pairs.c.key_id.in_(some))
        rows = [{"key_id": each} for each in set(some).difference(connection.scalars(known))]
        if rows:
            early = upsert(connection, _early).values(revoked_at=now(), **_told(revocation))
            connection.execute(early.on_conflict_do_nothing(), rows)
            revoked += len(rows)
    return revoked


def _joined(key_ids: Iterable[bytes]) -> bytes:
    """Return them one after the other; they are many, and join() would keep each by itself."""
    joined = bytearray()
    for each in key_ids:
        joined += each
    return bytes(joined)


def _cut(joined: bytes) -> Iterator[bytes]:
    starts = range(0, len(joined), KEY_ID_LENGTH)
    return (joined[start : start + KEY_ID_LENGTH] for start in starts)


def _told(revocation: Revocation) -> dict[str, object]:
    return {"reason": revocation.reason, "why": revocation.why, "revoked_by": revocation.by}


def end_import(connection: Connection, batch_id: bytes) -> Revocation | None:
    """Say that a batch is recorded with this transaction; return what has revoked it meanwhile.

    Raises UsageError if it was given up.
    """
    open_ = delete(_imports).where(_imports.c.batch_id == batch_id, _OPEN)
    if connection.execute(open_).rowcount:
        return None
    revocation = _revocation_of(connection, batch_id)
    if revocation is None:
        raise UsageError("This import was given up meanwhile; import the batch again.")
    return revocation


def _revocation_of(connection: Connection, batch_id: bytes) -> Revocation | None:
    query = select(_imports.c.why, _imports.c.reason, _imports.c.revoked_by)
    row = connection.execute(query.where(_imports.c.batch_id == batch_id, ~_OPEN)).first()
    return _revocation(*row) if row else None


def _revocation(why: str, reason: str, by: str | None) -> Revocation:
    return Revocation(why, Reason(reason), by)

"""The key pairs: taken in, found, listed, revoked, expired."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    bindparam,
    func,
    select,
    update,
)

from carnet import crash
from carnet.database.sql import in_pieces, now, upsert
from carnet.portions import batched
from carnet.wire.envelope import PAIRED
from carnet.wire.messages import MAX_INVALID_PAIRS
from host_agent.keydb.copies import is_owed_or_back
from host_agent.keydb.records import (
    QUIETLY,
    RECORDED,
    Arrival,
    Count,
    NewPair,
    PairRecord,
    PairState,
    Reason,
    Revocation,
)
from host_agent.keydb.store import Store, conditions_of
from host_agent.keydb.under_way import end_import, revocations_of
from host_agent.keydb.unfinished import check_not_given_up
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests
from host_agent.store_name import KeyStoreName

T = TypeVar("T")
_AT_ONCE = 1000
"""Rows that one statement adds or changes."""


# Made once: to make a statement takes longer than to run it.
_FIND = select(
    _pairs,
    func.coalesce(_pairs.c.not_after <= now(), False).label("expired"),
    now().label("looked_up_at"),
).where(_pairs.c.key_id == bindparam("wanted"))
_INVALID = (
    select(_pairs.c.key_id)
    .where(
        _pairs.c.token_serial == bindparam("serial"),
        _pairs.c.user_id == bindparam("user"),
        _pairs.c.key_id != bindparam("itself"),
        _pairs.c.state == PairState.INVALID,
    )
    .order_by(_pairs.c.invalid_at.desc())
    .limit(MAX_INVALID_PAIRS)
)


class _Invalidated(NamedTuple):
    key_id: bytes
    user_id: str


class Pairs(Store):
    """Which pairs there are, and in what state."""

    def add_pairs(self, pairs: Iterable[NewPair], arrival: Arrival = QUIETLY) -> int:
        """Take pairs in, all of them or, where `pairs` raises, none; return how many were new.

        One that was known already stays as it is, whatever its state. They are written
        some thousand at a time, so that any number of them takes little memory; until
        the last nobody else writes.
        """
        return self._add_all(pairs, self._add, arrival)

    def _add_all(
        self,
        stream: Iterable[T],
        add: Callable[[Connection, list[T], Revocation | None], Collection[bytes]],
        arrival: Arrival,
    ) -> int:
        """Add portions of a stream in one transaction; return how many pairs were new."""
        new, batch_id = 0, arrival.batch_id
        with self._writing(brief=False) as connection:
            revocation = None if batch_id is None else end_import(connection, batch_id)
            for some in batched(stream, _AT_ONCE):
                new += len(add(connection, some, revocation))
                crash.reach("import.pairs-added")
                arrival.on_added(len(some))
            if arrival.received is not None and new:
                self._audit(connection, "batch-received", new=new, **arrival.received)
        return new

    def _add(
        self,
        connection: Connection,
        pairs: Sequence[NewPair],
        revocation: Revocation | None,
    ) -> Collection[bytes]:
        """Add pairs, invalid ones after a revocation; return the key_ids of those that were new."""
        insert = upsert(connection, _pairs).on_conflict_do_nothing().returning(_pairs.c.key_id)
        common = {"state": PairState.VALID, "imported_at": connection.scalar(select(now()))}
        added = set(connection.scalars(insert, [{**vars(pair), **common} for pair in pairs]))
        check_not_given_up(connection, key_ids=added & {p.key_id for p in pairs if _is_on_hsm(p)})
        self._audit_all(
            connection,
            "imported",
            (_facts(pair) for pair in pairs if pair.key_id in added),
        )
        for early, key_ids in revocations_of(connection, added).items():
            self._revoke(connection, early, _pairs.c.key_id.in_(key_ids))
        if revocation is not None:
            # Those too that are known by another batch: a mint writes one for each HSM.
            brought = [pair.key_id for pair in pairs]
            self._revoke(connection, revocation, _pairs.c.key_id.in_(brought))
        return added

    def unknown_pairs(self, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Return those of some key_ids that were never known."""
        query = select(_pairs.c.key_id).where(_pairs.c.key_id.in_(key_ids))
        with self._reading.begin() as connection:
            return frozenset(key_ids) - set(connection.scalars(query))

    def pairs_for_tokens(self, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Return those of some key_ids that an HSM may take in: unknown, or valid on tokens."""
        valid = (_pairs.c.state == PairState.VALID) & (_pairs.c.key_store == KeyStoreName.TOKEN)
        query = select(_pairs.c.key_id).where(_pairs.c.key_id.in_(key_ids), ~valid)
        with self._reading.begin() as connection:
            return frozenset(key_ids) - set(connection.scalars(query))

    def store_of_valid(self, key_ids: Collection[bytes]) -> KeyStoreName | None:
        """Return the key store of those of some pairs that are valid; None where none is."""
        query = select(_pairs.c.key_store).where(
            _pairs.c.key_id.in_(key_ids), _pairs.c.state == PairState.VALID
        )
        with self._reading.begin() as connection:
            found = connection.scalar(query.limit(1))
        return None if found is None else KeyStoreName(found)

    def find_pair(self, key_id: bytes) -> PairRecord | None:
        """Return the pair of that key_id, None if it was never known."""
        with self._reading.begin() as connection:
            return pair_in(connection, key_id)

    def invalid_pairs(self, pair: PairRecord) -> tuple[bytes, ...]:
        """Return the key_ids of the same token's other pairs that are invalid, newest first.

        Not those that are past their last day and valid: the Client destroys what is listed,
        and the clock may have leapt (host_agent.clock_watch).
        """
        whose = {"serial": pair.token_serial, "user": pair.user_id, "itself": pair.key_id}
        with self._reading.begin() as connection:
            return tuple(connection.scalars(_INVALID, whose))

    def pairs(self, user_id: str | None = None, state: str | None = None) -> Iterator[RowMapping]:
        """Yield the pairs, by user and in order of use, with the request that spent each.

        `state` is a state, a reason, or OWED.
        """
        columns = (_requests.c.request_id, _requests.c.outcome, _requests.c.end_reason)
        query = (
            select(_pairs, is_owed_or_back().label("destruction_owed"), *columns)
            .outerjoin(_requests, _requests.c.key_id == _pairs.c.key_id)
            .order_by(_pairs.c.user_id, _pairs.c.label)
        )
        with self._reading.begin() as connection:
            yield from connection.execute(_only(query, user_id, state)).mappings()

    def count(self, user_id: str | None = None, state: str | None = None) -> list[Count]:
        """Return how many pairs each user has in each state and place, and how many are owed."""
        word = func.coalesce(_pairs.c.reason, _pairs.c.state)
        by = (_pairs.c.user_id, word, _pairs.c.custody, _pairs.c.key_store)
        owed = func.count().filter(is_owed_or_back())
        query = select(*by, func.count(), owed).group_by(*by).order_by(*by)
        with self._reading.begin() as connection:
            return [Count(*row) for row in connection.execute(_only(query, user_id, state))]

    def pairs_left(self) -> dict[str, int]:
        """Return how many valid pairs each user has, also who has none left."""
        valid = (_pairs.c.state == PairState.VALID) & (
            _pairs.c.not_after.is_(None) | (_pairs.c.not_after > now())
        )
        query = select(_pairs.c.user_id, func.count().filter(valid)).group_by(_pairs.c.user_id)
        with self._reading.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def revoke(
        self, why: str, reason: Reason = Reason.REVOKED, by: str | None = None, **which: object
    ) -> list[bytes]:
        """Turn valid pairs invalid: by key_id, user_id or token_serial; return which.

        All at once: when this is over none of them can be spent, and when it is cut off
        nothing is done. `by` is who wants it, where that is not the operator.
        """
        with self._writing() as connection:
            return self._revoke(connection, Revocation(why, reason, by), *conditions_of(which))

    def _revoke(
        self, connection: Connection, revocation: Revocation, *conditions: ColumnElement[bool]
    ) -> list[bytes]:
        revoked = _invalidate(connection, revocation.reason, *conditions)
        self._audit_pairs(connection, "revoked", revoked, **revocation.facts)
        return [each.key_id for each in revoked]

    def revoked_before(self, **which: object) -> tuple[int, int]:
        """Return how many of these pairs are revoked, and of how many the tunnels are."""
        is_revoked = _pairs.c.reason.in_((Reason.REVOKED, Reason.LOST))
        query = (
            select(func.count().filter(is_revoked), func.count(_requests.c.revoked_at))
            .select_from(_pairs.outerjoin(_requests))
            .where(*conditions_of(which))
        )
        with self._reading.begin() as connection:
            pairs, tunnels = connection.execute(query).one()
        return pairs, tunnels

    def host_keys_in_use(self) -> dict[bytes, int]:
        """Return how many valid pairs have their requests sealed to each of the Host's keys."""
        query = (
            select(_pairs.c.host_key_id, func.count())
            .where(_pairs.c.state == PairState.VALID, _pairs.c.host_key_id.is_not(None))
            .group_by(_pairs.c.host_key_id)
        )
        with self._reading.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def clock(self) -> int:
        """Return the database's time, in seconds since 1970: that by which pairs expire."""
        with self._reading.begin() as connection:
            return connection.scalar(select(now())) or 0

    def expire(self, at: int | None = None) -> list[bytes]:
        """Turn valid pairs invalid whose last day is past, then or now; return which.

        Some at a time, so that requests come in between: none of them can be spent anyway.
        """
        expired: list[bytes] = []
        while some := self._expire_some(at):
            expired += some
        return expired

    def _expire_some(self, at: int | None) -> list[bytes]:
        until = now() if at is None else at
        due = (_pairs.c.state == PairState.VALID) & (_pairs.c.not_after <= until)
        some = select(_pairs.c.key_id).where(due).limit(_AT_ONCE)
        with self._writing() as connection:
            expired = _invalidate(connection, Reason.EXPIRED, _pairs.c.key_id.in_(some))
            self._audit_pairs(connection, "expired", expired)
        return [each.key_id for each in expired]

    def _audit_pairs(
        self,
        connection: Connection,
        event: str,
        pairs: Iterable[_Invalidated],
        **facts: object,
    ) -> None:
        """Account for what happened to valid pairs: no request was made with one."""
        for some in batched(pairs, _AT_ONCE):
            whose = [
                {"user_id": each.user_id, "key_id": each.key_id, "request_id": None, **facts}
                for each in some
            ]
            self._audit_all(connection, event, whose)


def _facts(pair: NewPair) -> dict[str, object]:
    return {name: getattr(pair, name) for name in RECORDED}


def _is_on_hsm(pair: NewPair) -> bool:
    return pair.custody == PAIRED and pair.key_store is KeyStoreName.TOKEN


OWED = "owed"
"""A pair is invalid, and its private key may still be there."""


def _only(query: Select[Any], user_id: str | None, state: str | None) -> Select[Any]:
    if user_id is not None:
        query = query.where(_pairs.c.user_id == user_id)
    if state == OWED:
        return query.where(is_owed_or_back())
    if state is not None:
        column = _pairs.c.state if state in tuple(PairState) else _pairs.c.reason
        query = query.where(column == state)
    return query


def _invalidate(
    connection: Connection, reason: Reason, *conditions: ColumnElement[bool]
) -> list[_Invalidated]:
    valid = select(_pairs.c.key_id, _pairs.c.user_id).where(
        _pairs.c.state == PairState.VALID, *conditions
    )
    rows = in_pieces(connection, valid)
    found = [_Invalidated(row.key_id, row.user_id) for row in rows]
    for some in batched(found, _AT_ONCE):
        connection.execute(
            update(_pairs)
            .where(_pairs.c.key_id.in_([each.key_id for each in some]))
            .values(state=PairState.INVALID, reason=reason, invalid_at=now())
        )
    return found


def pair_in(connection: Connection, key_id: bytes) -> PairRecord | None:
    """Return the pair of that key_id as a transaction sees it."""
    row = connection.execute(_FIND, {"wanted": key_id}).mappings().first()
    return _pair(row) if row else None


def _pair(row: RowMapping) -> PairRecord:
    return PairRecord(
        key_id=row["key_id"],
        user_id=row["user_id"],
        token_serial=row["token_serial"],
        custody=row["custody"],
        suite=row["suite"],
        public_key=row["public_key"],
        state=PairState(row["state"]),
        not_after=row["not_after"],
        expired=bool(row["expired"]),
        looked_up_at=row["looked_up_at"],
        host_key_id=row["host_key_id"],
        key_store=KeyStoreName(row["key_store"]),
    )

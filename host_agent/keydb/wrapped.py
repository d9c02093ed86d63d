"""Private keys that are kept wrapped, and the keys of their batches on the HSM.

A wrapped key is deleted in the transaction that records it: the burn needs no HSM. The
key-encryption key (KEK) of a batch is destroyed on the HSM once its last pair is burned;
until that is recorded it is owed.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, select, update

from carnet.database.sql import now, upsert
from carnet.portions import batched
from host_agent.keydb.copies import Copies
from host_agent.keydb.pairs import Pairs
from host_agent.keydb.records import (
    QUIETLY,
    Arrival,
    BatchKey,
    NewPair,
    PairState,
    Revocation,
    WrappedKey,
)
from host_agent.keydb.unfinished import check_not_given_up
from host_agent.schema import batch_keys as _keks
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import wrapped_keys as _wrapped
from host_agent.store_name import KeyStoreName

_AT_ONCE = 500
"""Parameters of one statement; SQLite takes no more than some thousands."""


class Wrapped(Pairs, Copies):
    """The wrapped keys: taken in, found, burned; and the state of their batches' keys."""

    def begin_batch_key(self, kek_id: bytes, batch_id: bytes, token_serial: str) -> bool:
        """Write down that a KEK is about to be on a token, before it is.

        False if it has unwrapped its last pair already: it must not come back.
        """
        with self._writing() as connection:
            if connection.scalar(select(exists().where(_keks.c.kek_id == kek_id, _is_over()))):
                return False
            begun = {"imported_at": None, "destroyed_at": None}
            connection.execute(
                upsert(connection, _keks)
                .values(kek_id=kek_id, token_serial=token_serial, batch_id=batch_id)
                .on_conflict_do_update(index_elements=["kek_id", "token_serial"], set_=begun)
            )
        return True

    def finish_batch_key(self, kek_id: bytes) -> None:
        """Write down that every pair of the batch is taken in: a KEK without pairs is over."""
        with self._writing() as connection:
            connection.execute(
                update(_keks)
                .where(_keks.c.kek_id == kek_id, _keks.c.imported_at.is_(None))
                .values(imported_at=now())
            )

    def has_batch_keys(self) -> bool:
        """Tell whether there ever was a KEK."""
        with self._reading.begin() as connection:
            return bool(connection.scalar(select(exists().select_from(_keks))))

    def needs_batch_key(self, kek_id: bytes) -> bool:
        """Tell whether there are pairs that this KEK unwraps."""
        with self._reading.begin() as connection:
            return bool(connection.scalar(select(exists().where(_wrapped.c.kek_id == kek_id))))

    def add_wrapped_pairs(
        self, pairs: Iterable[tuple[NewPair, WrappedKey]], arrival: Arrival = QUIETLY
    ) -> int:
        """Take pairs in with their wrapped private keys, as add_pairs() does."""
        return self._add_all(pairs, self._add_wrapped, arrival)

    def _add_wrapped(
        self,
        connection: Connection,
        pairs: Sequence[tuple[NewPair, WrappedKey]],
        revocation: Revocation | None,
    ) -> Collection[bytes]:
        added = self._add(connection, [pair for pair, _ in pairs], revocation)
        kept = set(connection.scalars(_kept_wrapped([pair.key_id for pair, _ in pairs])))
        rows = [{"key_id": pair.key_id, **vars(key)} for pair, key in pairs if pair.key_id in kept]
        if rows:
            check_not_given_up(connection, kek_ids={key.kek_id for _, key in pairs})
            connection.execute(upsert(connection, _wrapped).on_conflict_do_nothing(), rows)
        return added

    def pairs_for_batch_key(self, kek_id: bytes, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Return those of some key_ids that this KEK shall unwrap and does not yet.

        They are unknown, or valid and kept wrapped under the KEKs of other HSMs.
        """
        here = select(_wrapped.c.key_id).where(
            _wrapped.c.kek_id == kek_id, _wrapped.c.key_id.in_(key_ids)
        )
        with self._reading.begin() as connection:
            others = set(connection.scalars(_kept_wrapped(key_ids)))
            others -= set(connection.scalars(here))
        return self.unknown_pairs(key_ids) | others

    def wrapped_keys(self, key_id: bytes) -> list[WrappedKey]:
        """Return a pair's wrapped private key, one for each KEK; none once it is burned."""
        query = select(_wrapped.c.kek_id, _wrapped.c.wrapped).where(_wrapped.c.key_id == key_id)
        with self._reading.begin() as connection:
            return [WrappedKey(*row) for row in connection.execute(query)]

    def burn_wrapped(self, key_id: bytes) -> list[bytes]:
        """Delete a pair's wrapped private key (step 10); return the KEKs it was under."""
        with self._writing() as connection:
            gone = delete(_wrapped).where(_wrapped.c.key_id == key_id)
            kek_ids = list(connection.scalars(gone.returning(_wrapped.c.kek_id)))
            self._record_destroyed(connection, key_id)
        return kek_ids

    def batch_keys_over(self, kek_ids: Collection[bytes]) -> list[bytes]:
        """Return those of these KEKs that no pair needs any more, destroyed or not."""
        over: list[bytes] = []
        with self._reading.begin() as connection:
            for some in batched(kek_ids, _AT_ONCE):
                over += connection.scalars(
                    select(_keks.c.kek_id).distinct().where(_keks.c.kek_id.in_(some), _is_over())
                )
        return over

    def batch_keys_to_destroy(self, token_serial: str) -> list[bytes]:
        """Return the KEKs that no pair needs any more, and that may still be on this token."""
        owed = _keks.c.destroyed_at.is_(None) & (_keks.c.token_serial == token_serial)
        with self._reading.begin() as connection:
            return list(connection.scalars(select(_keks.c.kek_id).where(owed, _is_over())))

    def record_batch_key_destroyed(self, kek_id: bytes, token_serial: str) -> bool:
        """Write down that a KEK is gone from a token; once only.

        False if that was known, or if it never was on this token.
        """
        with self._writing() as connection:
            batch_id = connection.scalar(
                update(_keks)
                .where(
                    _keks.c.kek_id == kek_id,
                    _keks.c.token_serial == token_serial,
                    _keks.c.destroyed_at.is_(None),
                )
                .values(destroyed_at=now())
                .returning(_keks.c.batch_id)
            )
            if batch_id is not None:
                self._audit(
                    connection,
                    "batch-key-destroyed",
                    batch_id=batch_id,
                    token_serial=token_serial,
                )
            return batch_id is not None

    def batch_keys(self) -> list[BatchKey]:
        """Return every KEK that ever was on a token, and how many pairs still need it."""
        pairs = (
            select(func.count())
            .select_from(_wrapped)
            .where(_wrapped.c.kek_id == _keks.c.kek_id)
            .scalar_subquery()
        )
        columns = (_keks.c.kek_id, _keks.c.token_serial, _keks.c.batch_id, pairs)
        query = select(*columns, _keks.c.imported_at, _keks.c.destroyed_at).order_by(
            _keks.c.batch_id, _keks.c.token_serial
        )
        with self._reading.begin() as connection:
            return [BatchKey(*row) for row in connection.execute(query)]


def _kept_wrapped(key_ids: Collection[bytes]) -> Select[Any]:
    """Choose those of some pairs that are valid, and whose private keys are kept wrapped."""
    return select(_pairs.c.key_id).where(
        _pairs.c.key_id.in_(key_ids),
        _pairs.c.state == PairState.VALID,
        _pairs.c.key_store == KeyStoreName.WRAPPED,
    )


def _is_over() -> ColumnElement[bool]:
    """Whether a KEK has unwrapped its last pair; never again while one is being taken in."""
    needed = exists().where(_wrapped.c.kek_id == _keks.c.kek_id)
    return _keks.c.imported_at.is_not(None) & ~needed

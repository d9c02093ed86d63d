"""The key pairs: taken in, found, listed, revoked, expired, destroyed."""

import time
from collections.abc import Iterator

from sqlalchemy import RowMapping, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from carnet.wire.messages import MAX_INVALID_PAIRS
from host_agent.keydb.records import NewPair, PairRecord, PairState, Reason
from host_agent.keydb.store import Store
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests


class Pairs(Store):
    """Which pairs there are, and in what state."""

    def add_pair(self, pair: NewPair) -> bool:
        """Take a pair in; False if it was known already, whatever its state."""
        with self._engine.begin() as connection:
            added = connection.execute(
                upsert(_pairs)
                .values(**vars(pair), state=PairState.VALID, imported_at=int(time.time()))
                .on_conflict_do_nothing()
            )
            if added.rowcount == 1:
                self._audit(
                    connection,
                    "imported",
                    key_id=pair.key_id,
                    user_id=pair.user_id,
                    batch_id=pair.batch_id,
                )
            return added.rowcount == 1

    def find_pair(self, key_id: bytes) -> PairRecord | None:
        """Return the pair of that key_id, None where it was never known."""
        with self._reading.begin() as connection:
            row = connection.execute(select(_pairs).where(_pairs.c.key_id == key_id)).first()
        return _pair(row._mapping) if row else None  # noqa: SLF001  SQLAlchemy's public name

    def invalid_pairs(self, pair: PairRecord) -> tuple[bytes, ...]:
        """Return the key_ids of the same token's other pairs that are invalid, newest first."""
        now = int(time.time())
        with self._reading.begin() as connection:
            return tuple(
                connection.scalars(
                    select(_pairs.c.key_id)
                    .where(
                        _pairs.c.token_serial == pair.token_serial,
                        _pairs.c.user_id == pair.user_id,
                        _pairs.c.key_id != pair.key_id,
                        (_pairs.c.state == PairState.INVALID) | (_pairs.c.not_after <= now),
                    )
                    .order_by(_pairs.c.invalid_at.desc())
                    .limit(MAX_INVALID_PAIRS)
                )
            )

    def pairs(self, user_id: str | None = None) -> Iterator[RowMapping]:
        """Yield the pairs, by user and in order of use, with the request that spent each."""
        query = (
            select(_pairs, _requests.c.request_id, _requests.c.outcome, _requests.c.end_reason)
            .outerjoin(_requests, _requests.c.key_id == _pairs.c.key_id)
            .order_by(_pairs.c.user_id, _pairs.c.label)
        )
        if user_id:
            query = query.where(_pairs.c.user_id == user_id)
        with self._reading.begin() as connection:
            yield from connection.execute(query).mappings()

    def revoke(self, why: str, **which: object) -> list[bytes]:
        """Turn valid pairs invalid: by key_id, user_id or token_serial; return which."""
        conditions = [_pairs.c[column] == value for column, value in which.items()]
        with self._engine.begin() as connection:
            revoked = list(
                connection.scalars(
                    update(_pairs)
                    .where(_pairs.c.state == PairState.VALID, *conditions)
                    .values(
                        state=PairState.INVALID,
                        reason=Reason.REVOKED,
                        invalid_at=int(time.time()),
                    )
                    .returning(_pairs.c.key_id)
                )
            )
            for key_id in revoked:
                self._audit(connection, "revoked", key_id=key_id, why=why)
        return revoked

    def expire(self) -> list[bytes]:
        """Turn valid pairs invalid whose last day is past; return which."""
        now = int(time.time())
        with self._engine.begin() as connection:
            expired = list(
                connection.scalars(
                    update(_pairs)
                    .where(_pairs.c.state == PairState.VALID, _pairs.c.not_after <= now)
                    .values(state=PairState.INVALID, reason=Reason.EXPIRED, invalid_at=now)
                    .returning(_pairs.c.key_id)
                )
            )
            for key_id in expired:
                self._audit(connection, "expired", key_id=key_id)
        return expired

    def keys_to_destroy(self) -> list[bytes]:
        """Return invalid pairs whose private key may still be on the HSM.

        A pair whose request is unanswered needs its key for the answer.
        """
        unanswered = select(_requests.c.key_id).where(_requests.c.outcome.is_(None))
        with self._reading.begin() as connection:
            return list(
                connection.scalars(
                    select(_pairs.c.key_id).where(
                        _pairs.c.state == PairState.INVALID,
                        _pairs.c.key_destroyed_at.is_(None),
                        _pairs.c.key_id.not_in(unanswered),
                    )
                )
            )

    def record_destroyed(self, key_id: bytes) -> None:
        """Write down that a pair's private key is gone from the HSM (step 10)."""
        with self._engine.begin() as connection:
            connection.execute(
                update(_pairs)
                .where(_pairs.c.key_id == key_id)
                .values(key_destroyed_at=int(time.time()))
            )
            self._audit(connection, "key-destroyed", key_id=key_id)


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
    )

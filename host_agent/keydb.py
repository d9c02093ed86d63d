"""The Key Database: which one-time key pairs there are, and what became of each.

Every change of state is one transaction with its audit record in it (the paper's
accounting: steps 2 and 3).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, Engine, Row, RowMapping, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from carnet import audit
from carnet.database import for_reading, opened_database
from carnet.wire.control import TunnelEnded
from carnet.wire.envelope import Envelope, SignedRequest
from carnet.wire.messages import MAX_INVALID_PAIRS
from host_agent import schema

ANSWER_KEPT = 600
"""Seconds for which a sealed response is kept, and a request may be taken up again."""

_pairs = schema.key_pairs
_requests = schema.requests


class PairState(StrEnum):
    """The two states of the paper."""

    VALID = "valid"
    INVALID = "invalid"


class Reason(StrEnum):
    """Why a pair is invalid."""

    SPENT = "spent"
    REVOKED = "revoked"
    EXPIRED = "expired"
    LOST = "lost"


@dataclass(frozen=True)
class PairRecord:
    """A key pair as the Key Database has it."""

    key_id: bytes
    user_id: str
    token_serial: str
    custody: str
    suite: int
    public_key: bytes
    state: PairState
    not_after: int | None


@dataclass(frozen=True)
class RequestRecord:
    """The request that spent a pair."""

    key_id: bytes
    digest: bytes
    evidence: bytes
    spent_at: int
    outcome: str | None
    response: bytes | None
    """The sealed response, as long as it is kept."""


@dataclass(frozen=True)
class NewPair:
    """A pair that a batch brings."""

    key_id: bytes
    user_id: str
    token_serial: str
    batch_id: bytes
    label: str
    custody: str
    suite: int
    public_key: bytes
    not_after: int | None


class KeyDatabase:
    """One open Key Database; its methods may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = for_reading(engine)

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["KeyDatabase"]:
        """Open the database file, made where there is none; raises UsageError."""
        with opened_database(path, "host_agent") as engine:
            yield cls(engine)

    def begin(self) -> Connection:
        """Return a connection for reading the accounts; close it afterwards."""
        return self._reading.connect()

    def find_pair(self, key_id: bytes) -> PairRecord | None:
        """Return the pair of that key_id, None where it was never known."""
        with self._reading.begin() as connection:
            row = connection.execute(select(_pairs).where(_pairs.c.key_id == key_id)).first()
        return _pair(row._mapping) if row else None  # noqa: SLF001  SQLAlchemy's public name

    def find_request(self, key_id: bytes) -> RequestRecord | None:
        """Return the request that spent a pair, if one did."""
        with self._reading.begin() as connection:
            row = connection.execute(select(_requests).where(_requests.c.key_id == key_id)).first()
        return _request(row) if row else None

    def spend(self, envelope: Envelope, signed: SignedRequest) -> bool:
        """Step 3: turn a valid pair invalid by this request; False if it was not valid.

        A compare-and-set, durable when it returns; one request wins, ever.
        """
        request, now = signed.request, int(time.time())
        with self._engine.begin() as connection:
            spent = connection.execute(
                update(_pairs)
                .where(
                    _pairs.c.key_id == envelope.key_id,
                    _pairs.c.state == PairState.VALID,
                    _pairs.c.not_after.is_(None) | (_pairs.c.not_after > now),
                )
                .values(state=PairState.INVALID, reason=Reason.SPENT, invalid_at=now)
            )
            if spent.rowcount != 1:
                return False
            connection.execute(
                insert(_requests).values(
                    key_id=envelope.key_id,
                    digest=envelope.digest,
                    request_id=request.request_id,
                    target=request.request_info.target,
                    objective_id=request.objective_id,
                    evidence=signed.evidence,
                    spent_at=now,
                )
            )
            self._audit(
                connection,
                "spent",
                key_id=envelope.key_id,
                request_id=request.request_id,
                user_id=request.user_id,
                target=request.request_info.target,
                objective_id=request.objective_id,
                digest=envelope.digest,
            )
        return True

    def store_response(self, key_id: bytes, outcome: str, response: bytes) -> bytes | None:
        """Step 7: store the sealed response; return the one that stands.

        Where another run stored one first, that one stands, so that the Client
        never sees two; None where it is no longer kept.
        """
        with self._engine.begin() as connection:
            stored = connection.execute(
                update(_requests)
                .where(_requests.c.key_id == key_id, _requests.c.outcome.is_(None))
                .values(outcome=outcome, response=response, answered_at=int(time.time()))
            )
            if stored.rowcount == 1:
                self._audit(connection, "answered", key_id=key_id, outcome=outcome)
                return response
            stands: bytes | None = connection.execute(
                select(_requests.c.response).where(_requests.c.key_id == key_id)
            ).scalar_one()
            return stands

    def unanswered(self, older_than: int = 0) -> list[RequestRecord]:
        """Return the requests of so many seconds that are without an answer."""
        spent_by = int(time.time()) - older_than
        with self._reading.begin() as connection:
            rows = connection.execute(
                select(_requests).where(
                    _requests.c.outcome.is_(None), _requests.c.spent_at <= spent_by
                )
            )
            return [_request(row) for row in rows]

    def drop_old_responses(self) -> None:
        """Forget sealed responses that are no longer kept."""
        with self._engine.begin() as connection:
            connection.execute(
                update(_requests)
                .where(
                    _requests.c.response.is_not(None),
                    _requests.c.answered_at <= int(time.time()) - ANSWER_KEPT,
                )
                .values(response=None)
            )

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

    def cursor(self, target: str) -> int:
        """Return the number of the last ended tunnel that this Target told."""
        query = select(func.max(schema.cursors.c.number)).where(schema.cursors.c.target == target)
        with self._reading.begin() as connection:
            return connection.execute(query).scalar() or 0

    def record_ended(self, target: str, tunnels: tuple[TunnelEnded, ...]) -> None:
        """Account for tunnels that a Target says have ended."""
        with self._engine.begin() as connection:
            for tunnel in tunnels:
                connection.execute(
                    update(_requests)
                    .where(
                        _requests.c.request_id == tunnel.request_id,
                        _requests.c.target == target,
                    )
                    .values(ended_at=tunnel.ended_at, end_reason=tunnel.reason)
                )
                self._audit(
                    connection,
                    "tunnel-ended",
                    request_id=tunnel.request_id,
                    target=target,
                    reason=tunnel.reason,
                )
            connection.execute(
                upsert(schema.cursors)
                .values(target=target, number=tunnels[-1].number)
                .on_conflict_do_update(
                    index_elements=["target"], set_={"number": tunnels[-1].number}
                )
            )

    def _audit(self, connection: Connection, event: str, **facts: object) -> None:
        audit.append(connection, schema.audit, event, **facts)


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


def _request(row: Row[tuple[object, ...]]) -> RequestRecord:
    kept = row.answered_at is None or row.answered_at > time.time() - ANSWER_KEPT
    return RequestRecord(
        key_id=row.key_id,
        digest=row.digest,
        evidence=row.evidence,
        spent_at=row.spent_at,
        outcome=row.outcome,
        response=row.response if kept else None,
    )

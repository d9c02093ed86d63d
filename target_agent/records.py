"""The record of every request and its tunnel: each step and its account in one transaction."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Engine, Row, func, select
from sqlalchemy.exc import SQLAlchemyError

from carnet import audit
from carnet.database import for_reading, transaction
from carnet.wire import cbor
from carnet.wire.control import (
    MAX_CONTROL,
    TunnelAnswer,
    TunnelEnded,
    TunnelGrant,
    TunnelRefusal,
    TunnelRequest,
)
from carnet.wire.keys import key_id_of
from carnet.wire.messages import Request
from target_agent.access import AccessEntry
from target_agent.members import as_facts
from target_agent.schema import audit as audit_table
from target_agent.schema import tunnels

LIVE = ("prepared", "established")
MAX_ENDED = 64
"""Ends that are told at once; Host asks again for more."""


@dataclass(frozen=True)
class Asking:
    """Who asks: Host's statement with its evidence, and which Host TLS proved it to be."""

    statement: TunnelRequest
    host: str

    @property
    def key_id(self) -> bytes:
        """Of the key pair that the Client used, as Host states it."""
        return key_id_of(self.statement.public_key)

    @property
    def evidence_digest(self) -> bytes:
        """SHA-256 of what the Client signed."""
        return hashlib.sha256(self.statement.evidence).digest()


@dataclass(frozen=True, kw_only=True)
class TunnelRecord:
    """One row: a request whose evidence held, and what became of it; times since 1970."""

    request_id: bytes
    user_id: str
    host: str
    key_id: bytes
    suite: int
    public_key: bytes
    evidence: bytes
    evidence_digest: bytes
    objective_id: int
    networks: str
    virtual_address: str | None
    state: str
    answer: bytes
    answered_at: int
    established_at: int | None
    expires_at: int | None
    ended_at: int | None
    end_reason: str | None
    ended_number: int | None
    driver: str | None
    """With which a granted tunnel was made; None where nothing tells."""

    @property
    def answer_digest(self) -> bytes:
        """SHA-256 of the answer, as the accounts name it."""
        return hashlib.sha256(self.answer).digest()

    @property
    def tunnel_answer(self) -> TunnelAnswer:
        """The answer, the very same as it was given."""
        answer = cbor.unpack_union(self.answer, TunnelAnswer, MAX_CONTROL)
        return cast("TunnelAnswer", answer)

    def is_of(self, asking: Asking) -> bool:
        """Tell whether the same Host asks with the same evidence."""
        return (self.host, self.user_id, self.public_key, self.evidence) == (
            asking.host,
            asking.statement.user_id,
            asking.statement.public_key,
            asking.statement.evidence,
        )


class PairUsedError(SQLAlchemyError):
    """Nothing was written down: another request under this key pair was, just before."""


class Records:
    """The tunnels of this Target, in its database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, request_id: bytes) -> TunnelRecord | None:
        """Return what became of a request, None if it is unknown."""
        found = self._read(tunnels.c.request_id == request_id)
        return found[0] if found else None

    def of_pair(self, key_id: bytes) -> TunnelRecord | None:
        """Return the request that a key pair was used for, None if it was for none."""
        found = self._read(tunnels.c.key_id == key_id)
        return found[0] if found else None

    def live(self) -> list[TunnelRecord]:
        """Return the tunnels that are prepared or established."""
        return self._read(tunnels.c.state.in_(LIVE))

    def all(self) -> list[TunnelRecord]:
        """Return all records, oldest first."""
        return self._read()

    def prepare(
        self,
        asking: Asking,
        request: Request,
        grant: TunnelGrant,
        entries: tuple[AccessEntry, ...],
        driver: str,
    ) -> None:
        """Write down a granted tunnel, with the lines of the access control list it rests on.

        `driver` is the name of the one that it was made with.

        Raises IntegrityError if its virtual address belongs to another live tunnel, and
        PairUsedError.
        """
        info = grant.tunneling_info
        facts = {
            "access": [as_facts(entry) for entry in entries],
            "networks": list(info.networks),
            "virtual_address": info.virtual_address,
            "expires_at": info.expires,
            "answer_digest": _digest(grant),
        }
        with transaction(self._engine) as connection:
            _require_unused_pair(connection, asking)
            connection.execute(
                tunnels.insert().values(
                    **_asked(asking, request, grant),
                    state="prepared",
                    networks=" ".join(info.networks),
                    virtual_address=info.virtual_address,
                    expires_at=info.expires,
                    driver=driver,
                )
            )
            _account(connection, "tunnel-prepared", asking, request.request_id, **facts)

    def refuse(self, asking: Asking, request: Request, refusal: TunnelRefusal) -> None:
        """Write down that a request, whose evidence held, was refused; raises PairUsedError."""
        networks = " ".join(request.request_info.networks or ())
        with transaction(self._engine) as connection:
            _require_unused_pair(connection, asking)
            connection.execute(
                tunnels.insert().values(
                    **_asked(asking, request, refusal), state="refused", networks=networks
                )
            )
            _account_refusal(connection, asking, refusal, answer_digest=_digest(refusal))

    def refuse_unproved(self, asking: Asking, refusal: TunnelRefusal) -> None:
        """Account for a refusal that proves nothing about its Request ID, and so has no row."""
        with transaction(self._engine) as connection:
            _account_refusal(connection, asking, refusal)

    def establish(self, request_id: bytes) -> None:
        """Write down that the tunnel stands."""
        with transaction(self._engine) as connection:
            connection.execute(
                tunnels.update()
                .where(tunnels.c.request_id == request_id)
                .values(state="established", established_at=int(time.time()))
            )
            audit.append(connection, audit_table, "tunnel-established", request_id=request_id)

    def doom(self, request_id: bytes, reason: str) -> None:
        """Write down that a live tunnel is to end, and why; the first reason stays."""
        with transaction(self._engine) as connection:
            doomed = connection.execute(
                tunnels.update()
                .where(
                    tunnels.c.request_id == request_id,
                    tunnels.c.state.in_(LIVE),
                    tunnels.c.end_reason.is_(None),
                )
                .values(end_reason=reason)
            )
            if doomed.rowcount:
                audit.append(
                    connection, audit_table, "tunnel-ending", request_id=request_id, reason=reason
                )

    def end(self, request_id: bytes, reason: str) -> None:
        """Write down that the tunnel ended, under the next number; once only."""
        with transaction(self._engine) as connection:
            last = connection.execute(select(func.max(tunnels.c.ended_number))).scalar() or 0
            ended = connection.execute(
                tunnels.update()
                .where(tunnels.c.request_id == request_id, tunnels.c.state.in_(LIVE))
                .values(
                    state="ended",
                    ended_at=int(time.time()),
                    end_reason=reason,
                    ended_number=last + 1,
                )
            )
            if ended.rowcount:
                audit.append(
                    connection, audit_table, "tunnel-ended", request_id=request_id, reason=reason
                )

    def ended_after(self, host: str, number: int) -> tuple[TunnelEnded, ...]:
        """Return what ended of this Host's tunnels after that number, oldest first."""
        query = (
            select(tunnels)
            .where(tunnels.c.host == host, tunnels.c.ended_number > number)
            .order_by(tunnels.c.ended_number)
            .limit(MAX_ENDED)
        )
        with for_reading(self._engine).begin() as connection:
            return tuple(_ended(row) for row in connection.execute(query))

    def _read(self, *conditions: Any) -> list[TunnelRecord]:
        query = select(tunnels).where(*conditions).order_by(tunnels.c.answered_at)
        with for_reading(self._engine).begin() as connection:
            return [TunnelRecord(**row) for row in connection.execute(query).mappings()]


def rows_of(connection: Connection, request_id: bytes) -> list[TunnelRecord]:
    """Return the rows of a Request ID: one, in a database as it was made."""
    query = select(tunnels).where(tunnels.c.request_id == request_id)
    return [TunnelRecord(**row) for row in connection.execute(query).mappings()]


def _require_unused_pair(connection: Connection, asking: Asking) -> None:
    """Raise PairUsedError if the pair was used; the transaction is the only one that writes."""
    query = select(tunnels.c.request_id).where(tunnels.c.key_id == asking.key_id)
    if connection.execute(query).first() is not None:
        raise PairUsedError("The key pair was used for another request.")


def _asked(asking: Asking, request: Request, answer: TunnelAnswer) -> dict[str, Any]:
    statement = asking.statement
    return {
        "request_id": request.request_id,
        "user_id": request.user_id,
        "host": asking.host,
        "key_id": asking.key_id,
        "suite": statement.suite,
        "public_key": statement.public_key,
        "evidence": statement.evidence,
        "evidence_digest": asking.evidence_digest,
        "objective_id": request.objective_id,
        "answer": cbor.pack(answer),
        "answered_at": int(time.time()),
    }


def _account(
    connection: Connection, event: str, asking: Asking, request_id: bytes, **facts: Any
) -> None:
    audit.append(
        connection,
        audit_table,
        event,
        request_id=request_id,
        key_id=asking.key_id,
        user_id=asking.statement.user_id,
        host=asking.host,
        evidence_digest=asking.evidence_digest,
        **facts,
    )


def _account_refusal(
    connection: Connection, asking: Asking, refusal: TunnelRefusal, **more: Any
) -> None:
    facts = {"code": str(refusal.code), "reason": refusal.reason, **more}
    _account(connection, "tunnel-refused", asking, refusal.request_id, **facts)


def _digest(answer: TunnelAnswer) -> bytes:
    """Return what the accounts name of an answer, which a repeated request gets again."""
    return hashlib.sha256(cbor.pack(answer)).digest()


def _ended(row: Row[Any]) -> TunnelEnded:
    return TunnelEnded(
        number=row.ended_number,
        request_id=row.request_id,
        reason=row.end_reason,
        ended_at=row.ended_at,
    )

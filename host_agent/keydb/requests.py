"""The requests: each spends a pair, once, and gets one response.

While a request has no answer, one process of the Host holds the lease of it and works
on it. The lease is in the database and runs out by the database's clock: so whoever is
slow, stopped or dead is replaced, and nobody has to guess which of the three it is.
"""

import hashlib
from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)

from carnet.database.sql import now
from carnet.wire.envelope import Envelope, SignedRequest
from host_agent.clock_watch import LEAP_SECONDS
from host_agent.keydb.records import PairState, Reason, RequestRecord
from host_agent.keydb.store import Store
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests

ANSWER_KEPT = 600
"""Seconds for which a sealed response is kept, and a request may be taken up again."""

LEASE_SECONDS = 6
"""For how long a process has a request to itself without saying that it still works on it."""


class Requests(Store):
    """Which request spent a pair, what it was answered, and who works on it."""

    def find_request(self, key_id: bytes) -> RequestRecord | None:
        """Return the request that spent a pair, if one did."""
        with self._reading.begin() as connection:
            return request_in(connection, key_id)

    def request_ids(self, user_id: str) -> list[bytes]:
        """Return the Request IDs of a user's requests."""
        query = (
            select(_requests.c.request_id)
            .join(_pairs, _pairs.c.key_id == _requests.c.key_id)
            .where(_pairs.c.user_id == user_id)
        )
        with self._reading.begin() as connection:
            return list(connection.scalars(query))

    def targets_of(self, request_id: bytes) -> list[str]:
        """Return at which Targets a request of that Request ID was granted: seldom but one."""
        query = (
            select(_requests.c.target)
            .where(_requests.c.request_id == request_id, _requests.c.outcome == "granted")
            .distinct()
        )
        with self._reading.begin() as connection:
            return list(connection.scalars(query))

    def spend(self, envelope: Envelope, signed: SignedRequest) -> bool:
        """Step 3: turn a valid pair invalid by this request; False if it was not valid.

        A compare-and-set, durable when it returns; one request wins, ever. The lease
        of the request is this process's.
        """
        request = signed.request
        with self._writing() as connection:
            spent = connection.execute(_SPEND, {"wanted": envelope.key_id})
            if spent.rowcount != 1:
                return False
            known = {
                "key_id": envelope.key_id,
                "request_id": request.request_id,
                "target": request.request_info.target,
                "objective_id": request.objective_id,
                "digest": envelope.digest,
            }
            by = {"evidence": signed.evidence, "holder": self.holder}
            connection.execute(_REQUEST, {**known, **by})
            self._audit(
                connection,
                "spent",
                **known,
                user_id=request.user_id,
                evidence_digest=hashlib.sha256(signed.evidence).digest(),
            )
        return True

    def store_response(
        self, key_id: bytes, outcome: str, response: bytes, reason: str | None = None
    ) -> bytes | None:
        """Step 7: store the sealed response; return the one that stands.

        `reason` is what a refusal says to the traveller, for the accounts.

        Where another run stored one first, that one stands, so that the Client
        never sees two; None where it is no longer kept. Whoever lost its lease may
        still be first: all that counts is that there is one.
        """
        with self._writing() as connection:
            answer = {"wanted": key_id, "as_outcome": outcome, "as_response": response}
            stored = connection.execute(_ANSWER, answer)
            if stored.rowcount == 1:
                self._audit_pair(connection, "answered", key_id, outcome=outcome, reason=reason)
                return response
            stands: bytes | None = connection.execute(
                select(_requests.c.response).where(_requests.c.key_id == key_id)
            ).scalar_one()
            return stands

    def take_lease(self, key_id: bytes) -> bool:
        """Take an unanswered request over; False while another process has the lease of it.

        A compare-and-set: of several that try at once, one gets it.
        """
        with self._writing() as connection:
            taken = connection.execute(
                update(_requests)
                .where(
                    _requests.c.key_id == key_id,
                    _requests.c.outcome.is_(None),
                    _is_free() | (_requests.c.holder == self.holder),
                )
                .values(**self._lease())
            )
        return taken.rowcount == 1

    def renew_leases(self, key_ids: Collection[bytes]) -> None:
        """Say that this process still works on these requests; what it lost stays lost."""
        self._change_leases(key_ids, self._lease())

    def let_go(self, key_id: bytes) -> None:
        """Give a request back unanswered: whoever gets its bytes next takes it up at once."""
        self._change_leases((key_id,), _NO_LEASE)

    def unanswered(self, older_than: int = 0) -> list[RequestRecord]:
        """Return the requests of so many seconds without an answer that nobody works on.

        Those too of which that is not known, since their date is ahead.
        """
        spent_at = _requests.c.spent_at
        is_old = or_(spent_at <= now() - older_than, _is_ahead(spent_at, now()))
        return self._without_answer(_is_free(), is_old)

    def abandoned(self) -> list[RequestRecord]:
        """Return the requests whose lease ran out: their process is dead, stopped or slow."""
        return self._without_answer(_ran_out())

    def drop_old_responses(self, at: int | None = None, *, ahead: bool = False) -> None:
        """Forget sealed responses that are no longer kept, then or now.

        And those whose date is ahead, where the clock has been steady for as long (`ahead`).
        """
        moment, answered_at = now() if at is None else at, _requests.c.answered_at
        is_old = answered_at <= moment - ANSWER_KEPT
        if ahead:
            is_old = or_(is_old, _is_ahead(answered_at, moment))
        with self._writing() as connection:
            connection.execute(
                update(_requests)
                .where(_requests.c.response.is_not(None), is_old)
                .values(response=None)
            )

    def _lease(self) -> dict[str, Any]:
        return {"holder": self.holder, "lease_until": _lease_until()}

    def _change_leases(self, key_ids: Collection[bytes], values: dict[str, Any]) -> None:
        with self._writing() as connection:
            connection.execute(
                update(_requests)
                .where(
                    _requests.c.key_id.in_(key_ids),
                    _requests.c.outcome.is_(None),
                    _requests.c.holder == self.holder,
                )
                .values(**values)
            )

    def _without_answer(self, *conditions: ColumnElement[bool]) -> list[RequestRecord]:
        query = _record().where(_requests.c.outcome.is_(None), *conditions)
        with self._reading.begin() as connection:
            return [_request(row) for row in connection.execute(query)]


_NO_LEASE: dict[str, Any] = {"holder": None, "lease_until": None}


def _lease_until() -> ColumnElement[int]:
    return now() + LEASE_SECONDS


def _is_free() -> ColumnElement[bool]:
    return or_(_requests.c.lease_until.is_(None), _ran_out())


def _ran_out() -> ColumnElement[bool]:
    """Say that a lease is over; one that is too long is from before the clock was set back."""
    until = _requests.c.lease_until
    return or_(until <= now(), until > now() + 2 * LEASE_SECONDS)


def _is_ahead(dated: ColumnElement[int], at: ColumnElement[int] | int) -> ColumnElement[bool]:
    """Say that a clock which was ahead has dated it, and not another process's of today."""
    return dated > at + LEAP_SECONDS


def _record() -> Select[Any]:
    """Select requests with what the clock says of their age."""
    dated = func.coalesce(_requests.c.answered_at, _requests.c.spent_at)
    kept = dated > now() - ANSWER_KEPT
    forgotten = _requests.c.outcome.is_not(None) & _requests.c.response.is_(None)
    return select(
        _requests.c.key_id,
        _requests.c.digest,
        _requests.c.evidence,
        _requests.c.outcome,
        case((kept, _requests.c.response)).label("response"),
        (~kept & ~forgotten).label("too_old"),
        _is_ahead(dated, now()).label("is_ahead"),
        now().label("looked_up_at"),
    )


# Made once: to make a statement takes longer than to run it.
_FIND = _record().where(_requests.c.key_id == bindparam("wanted"))
_SPEND = (
    update(_pairs)
    .where(
        _pairs.c.key_id == bindparam("wanted"),
        _pairs.c.state == PairState.VALID,
        _pairs.c.not_after.is_(None) | (_pairs.c.not_after > now()),
    )
    .values(state=PairState.INVALID, reason=Reason.SPENT, invalid_at=now())
)
_REQUEST = insert(_requests).values(spent_at=now(), lease_until=_lease_until())
_ANSWER = (
    update(_requests)
    .where(_requests.c.key_id == bindparam("wanted"), _requests.c.outcome.is_(None))
    .values(
        outcome=bindparam("as_outcome"),
        response=bindparam("as_response"),
        answered_at=now(),
        **_NO_LEASE,
    )
)


def request_in(connection: Connection, key_id: bytes) -> RequestRecord | None:
    """Return the request that spent a pair as a transaction sees it."""
    row = connection.execute(_FIND, {"wanted": key_id}).first()
    return _request(row) if row else None


def _request(row: Row[Any]) -> RequestRecord:
    return RequestRecord(**row._mapping)  # noqa: SLF001  SQLAlchemy's public name

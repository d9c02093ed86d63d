"""The requests: each spends a pair, once, and gets one response."""

import time

from sqlalchemy import Row, insert, select, update

from carnet.wire.envelope import Envelope, SignedRequest
from host_agent.keydb.records import PairState, Reason, RequestRecord
from host_agent.keydb.store import Store
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests

ANSWER_KEPT = 600
"""Seconds for which a sealed response is kept, and a request may be taken up again."""


class Requests(Store):
    """Which request spent a pair, and what it was answered."""

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

"""The tunnels: which shall end, which have ended, and how far each Target's list was read."""

from sqlalchemy import func, or_, select, update

from carnet.database.sql import now, upsert
from carnet.wire.control import TunnelEnded
from host_agent import schema
from host_agent.keydb.store import Store, conditions_of
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests

_GRANTED = "granted"


class Ended(Store):
    """What becomes of tunnels after the answer."""

    def revoke_tunnels(self, why: str, **which: object) -> int:
        """Have live tunnels ended: by key_id, user_id or token_serial; return how many.

        Live is what is not known to have ended, a request without an answer included.
        The service asks Target for it.
        """
        pairs = select(_pairs.c.key_id).where(*conditions_of(which))
        with self._engine.begin() as connection:
            request_ids = list(
                connection.scalars(
                    update(_requests)
                    .where(
                        _requests.c.key_id.in_(pairs),
                        or_(_requests.c.outcome.is_(None), _requests.c.outcome == _GRANTED),
                        _requests.c.ended_at.is_(None),
                        _requests.c.revoked_at.is_(None),
                    )
                    .values(revoked_at=now())
                    .returning(_requests.c.request_id)
                )
            )
            facts = ({"request_id": each, "why": why} for each in request_ids)
            self._audit_all(connection, "tunnel-revoked", facts)
        return len(request_ids)

    def tunnels_to_end(self, target: str) -> list[bytes]:
        """Return the Request IDs of revoked tunnels that this Target was not told of yet."""
        query = select(_requests.c.request_id).where(
            _requests.c.target == target,
            _requests.c.outcome == _GRANTED,
            _requests.c.revoked_at.is_not(None),
            _requests.c.end_asked_at.is_(None),
        )
        with self._reading.begin() as connection:
            return list(connection.scalars(query))

    def record_end_asked(self, target: str, request_id: bytes) -> None:
        """Write down that Target was told to end a tunnel; once only."""
        with self._engine.begin() as connection:
            asked = connection.execute(
                update(_requests)
                .where(
                    _requests.c.request_id == request_id,
                    _requests.c.target == target,
                    _requests.c.end_asked_at.is_(None),
                )
                .values(end_asked_at=now())
            )
            if asked.rowcount:
                self._audit(connection, "tunnel-end-asked", request_id=request_id, target=target)

    def cursor(self, target: str) -> int:
        """Return the number of the last ended tunnel that this Target told."""
        query = select(func.max(schema.cursors.c.number)).where(schema.cursors.c.target == target)
        with self._reading.begin() as connection:
            return connection.execute(query).scalar() or 0

    def record_ended(self, target: str, tunnels: tuple[TunnelEnded, ...]) -> None:
        """Account for tunnels that a Target says have ended; each once, whoever hears of it."""
        with self._engine.begin() as connection:
            known = connection.execute(
                select(func.max(schema.cursors.c.number)).where(schema.cursors.c.target == target)
            ).scalar()
            news = [tunnel for tunnel in tunnels if tunnel.number > (known or 0)]
            for tunnel in news:
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
            if news:
                connection.execute(
                    upsert(connection, schema.cursors)
                    .values(target=target, number=news[-1].number)
                    .on_conflict_do_update(
                        index_elements=["target"], set_={"number": news[-1].number}
                    )
                )

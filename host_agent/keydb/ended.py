"""The tunnels: which shall end, which have ended, and how far each Target's list was read."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, or_, select, update

from carnet.database.sql import in_pieces, now, upsert
from carnet.portions import batched
from carnet.wire.control import TunnelEnded
from host_agent import schema
from host_agent.keydb.store import Store, conditions_of
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests

_GRANTED = "granted"
_AT_ONCE = 500
"""Tunnels that one statement names."""


@dataclass(frozen=True)
class ListPlace:
    """How far a Target's list of ended tunnels was read: the last one read, if any was."""

    number: int = 0
    request_id: bytes | None = None
    """None also where only its number was kept."""

    def is_in(self, tunnels: tuple[TunnelEnded, ...]) -> bool:
        """Tell whether a list that Target gives from this number on begins with that one."""
        first = tunnels[0] if tunnels else None
        return first is not None and (first.number, first.request_id) == (
            self.number,
            self.request_id,
        )


class Ended(Store):
    """What becomes of tunnels after the answer."""

    def revoke_tunnels(self, why: str, **which: object) -> int:
        """Have live tunnels ended: by key_id, user_id or token_serial; return how many.

        Live is what is not known to have ended, a request without an answer included.
        The service asks Target for it.
        """
        live = select(_requests.c.key_id, _requests.c.request_id).where(
            _requests.c.key_id.in_(select(_pairs.c.key_id).where(*conditions_of(which))),
            or_(_requests.c.outcome.is_(None), _requests.c.outcome == _GRANTED),
            _requests.c.ended_at.is_(None),
            _requests.c.revoked_at.is_(None),
        )
        with self._writing() as connection:
            found = list(in_pieces(connection, live))
            for some in batched(found, _AT_ONCE):
                these = _requests.c.key_id.in_([row.key_id for row in some])
                connection.execute(update(_requests).where(these).values(revoked_at=now()))
                facts = [{"request_id": row.request_id, "why": why} for row in some]
                self._audit_all(connection, "tunnel-revoked", facts)
        return len(found)

    def ends_owed(self, **which: object) -> int:
        """Return how many revoked tunnels live that no Target was told of yet."""
        query = select(func.count()).where(
            _requests.c.key_id.in_(select(_pairs.c.key_id).where(*conditions_of(which))),
            or_(_requests.c.outcome.is_(None), _requests.c.outcome == _GRANTED),
            _requests.c.ended_at.is_(None),
            _requests.c.revoked_at.is_not(None),
            _requests.c.end_asked_at.is_(None),
        )
        with self._reading.begin() as connection:
            return connection.scalar(query) or 0

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
        with self._writing() as connection:
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

    def place(self, target: str) -> ListPlace:
        """Return how far this Target's list of ended tunnels was read."""
        with self._reading.begin() as connection:
            return _place(connection, target)

    def read_from_first(self, target: str, lost: ListPlace) -> None:
        """Have a Target's list read anew, unless another process has done so or read on."""
        _cursors = schema.cursors
        with self._writing() as connection:
            connection.execute(
                delete(_cursors).where(
                    _cursors.c.target == target,
                    _cursors.c.number == lost.number,
                    _cursors.c.request_id == lost.request_id,
                )
            )

    def record_ended(self, target: str, tunnels: tuple[TunnelEnded, ...]) -> None:
        """Account for tunnels that a Target says have ended; each once, whoever hears of it."""
        with self._writing() as connection:
            known = _place(connection, target).number
            news = [tunnel for tunnel in tunnels if tunnel.number > known]
            for tunnel in news:
                self._record_end(connection, target, tunnel)
            if news:
                last = {"number": news[-1].number, "request_id": news[-1].request_id}
                connection.execute(
                    upsert(connection, schema.cursors)
                    .values(target=target, **last)
                    .on_conflict_do_update(index_elements=["target"], set_=last)
                )

    def _record_end(self, connection: Connection, target: str, tunnel: TunnelEnded) -> None:
        """Account for one, unless it is accounted for already: a list may be read anew."""
        mine = (_requests.c.request_id == tunnel.request_id, _requests.c.target == target)
        if connection.scalar(select(func.max(_requests.c.ended_at)).where(*mine)) is not None:
            return
        connection.execute(
            update(_requests)
            .where(*mine)
            .values(ended_at=tunnel.ended_at, end_reason=tunnel.reason)
        )
        self._audit(
            connection,
            "tunnel-ended",
            request_id=tunnel.request_id,
            target=target,
            reason=tunnel.reason,
            ended_at=tunnel.ended_at,
        )


def _place(connection: Connection, target: str) -> ListPlace:
    row = connection.execute(
        select(schema.cursors.c.number, schema.cursors.c.request_id).where(
            schema.cursors.c.target == target
        )
    ).one_or_none()
    return ListPlace() if row is None else ListPlace(row.number, row.request_id)

"""The accounts of tunnels that ended, and how far each Target's list was read."""

from sqlalchemy import func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from carnet.wire.control import TunnelEnded
from host_agent import schema
from host_agent.keydb.store import Store
from host_agent.schema import requests as _requests


class Ended(Store):
    """What Targets told of tunnels that ended."""

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

"""The operator's orders to end tunnels, written down before the service is asked.

What is live is marked in its own record (Records.doom). An order says besides what no record
does yet: that a tunnel which is just being made is to end. It stays until it is obeyed.
"""

import time
from dataclasses import dataclass

from sqlalchemy import Engine, select

from carnet.database import for_reading, transaction
from target_agent.schema import orders

HEARD_SECONDS = 3
"""Within which the service mostly has heard of an order, and has the tunnel end by that."""


@dataclass(frozen=True, kw_only=True)
class WrittenOrder:
    """One row: to end the tunnel of one request, or all of a user, and why."""

    number: int
    request_id: bytes | None
    user_id: str | None
    reason: str
    ordered_at: int
    """Seconds since 1970, UTC."""


class Orders:
    """The orders that nobody is known to have obeyed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, request_id: bytes | None, user_id: str | None, reason: str) -> int:
        """Write an order down; return its number."""
        with transaction(self._engine) as connection:
            written = orders.insert().values(
                request_id=request_id, user_id=user_id, reason=reason, ordered_at=int(time.time())
            )
            return int(connection.execute(written.returning(orders.c.number)).scalar_one())

    def unheard(self) -> list[WrittenOrder]:
        """Return those of which the service should have heard by now, oldest first."""
        now = time.time()
        return [each for each in self._all() if not 0 <= now - each.ordered_at < HEARD_SECONDS]

    def reason_to_end(self, request_id: bytes) -> str | None:
        """Return why the tunnel of a request is to end before it is made; None if it is not."""
        query = select(orders.c.reason).where(orders.c.request_id == request_id)
        with for_reading(self._engine).begin() as connection:
            return connection.execute(query).scalar()

    def obeyed(self, number: int) -> None:
        """Strike an order out."""
        with transaction(self._engine) as connection:
            connection.execute(orders.delete().where(orders.c.number == number))

    def _all(self) -> list[WrittenOrder]:
        with for_reading(self._engine).begin() as connection:
            found = connection.execute(select(orders).order_by(orders.c.number)).mappings()
            return [WrittenOrder(**row) for row in found]

"""Obeying the operator's orders that the service was not told of, or died of.

The command that writes an order down wakes the service, which ends the tunnels then. A wake-up
may be lost; so the orders are looked at, now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from carnet.database import readers
from target_agent.orders import Orders, WrittenOrder
from target_agent.records import Records

log = structlog.get_logger()

LOOK_SECONDS = 2.0


class Obeying:
    """Looks, for ever; `end` and `end_all_of` wait for what is just being made."""

    def __init__(
        self,
        orders: Orders,
        records: Records,
        end: Callable[[bytes, str], Awaitable[object]],
        end_all_of: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._orders = orders
        self._records = records
        self._end = end
        self._end_all_of = end_all_of

    async def keep(self) -> None:
        """Look at once, and again and again."""
        while True:
            for order in await readers.ask(self._orders.unheard):
                await self._obey(order)
            await asyncio.sleep(LOOK_SECONDS)

    async def _obey(self, order: WrittenOrder) -> None:
        if order.user_id is not None:
            log.info("order-found", user_id=order.user_id, reason=order.reason)
            await self._end_all_of(order.user_id, order.reason)
        elif order.request_id is not None:
            await self._end(order.request_id, order.reason)
            if await readers.ask(self._records.find, order.request_id) is None:
                return  # its Host may ask again: Answering.authorize() looks at it
            log.info("order-found", request_id=order.request_id.hex(), reason=order.reason)
        await asyncio.to_thread(self._orders.obeyed, order.number)

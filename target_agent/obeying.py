"""Obeying the operator's orders that the service was not told of, or died of.

The command that writes an order down wakes the service, which ends the tunnels then. A wake-up
may be lost; so the orders are looked at, now and then.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.database import readers, reason_of
from carnet.trouble import Trouble
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
        self._unread = Trouble(log, "orders-unknown", "orders-known")

    async def keep(self) -> None:
        """Look at once, and again and again; what the database keeps from it comes later."""
        while True:
            try:
                await self._look()
            except SQLAlchemyError as error:
                self._unread.tell(reason_of(error))
            else:
                self._unread.over()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """Obey each, also where another cannot be struck out: that one is found again."""
        failed: SQLAlchemyError | None = None
        for order in await readers.ask(self._orders.unheard):
            try:
                await self._obey(order)
            except SQLAlchemyError as error:
                failed = error
        if failed is not None:
            raise failed

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

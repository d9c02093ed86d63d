"""Signing the head of a running agent's accounts: at start, at intervals, at shutdown."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine, Table
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.audit.heads import keep_head, next_head
from carnet.database import transaction
from carnet.errors import CarnetError
from carnet.wire.documents import AccountsHead

log = structlog.get_logger()

INTERVAL_SECONDS = 300
"""Records younger than this may be cut off without a trace."""

SignHead = Callable[[AccountsHead], Awaitable[bytes]]
"""Signs a head as a document; raises TokenError if the key cannot be used."""


@dataclass(frozen=True)
class HeadKeeper:
    """Signs the head of one agent's accounts."""

    engine: Engine
    records: Table
    heads: Table
    agent: str
    sign: SignHead
    kept: Callable[[bytes], Awaitable[None]] | None = None
    """Is told of each signed head once it is durable."""
    check: Callable[[], Awaitable[None]] | None = None
    """Raises CarnetError where nothing of this database may be signed now; asked each time."""
    marked: Callable[[], int] | None = None
    """Tells up to which record `kept` was told of heads, by this process or another."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where it should check, and sign, before the interval is over."""

    async def run(self) -> None:
        """Sign whenever there is something new to sign, for ever."""
        while True:
            self.asked.clear()
            await self.sign_newest()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self.asked.wait()

    async def sign_newest(self) -> None:
        """Sign the newest record, if it is not signed; what fails is logged and done later.

        The signed head goes to the log, too: who keeps the log elsewhere keeps a witness.
        """
        try:
            if self.check is not None:
                await self.check()
            head = await asyncio.to_thread(self._next)
            if head is None:
                return
            signed = await self.sign(head)
            crash.reach("accounts.head-signed")
            await asyncio.to_thread(self._keep, head.number, signed)
            crash.reach("accounts.head-kept")
            if self.kept is not None:
                await self.kept(signed)
        except (CarnetError, SQLAlchemyError) as error:
            log.warning("accounts-head-not-signed", reason=str(error))
            return
        log.info("accounts-head", number=head.number, signed=signed.hex())

    def _next(self) -> AccountsHead | None:
        with transaction(self.engine) as connection:
            marked = self.marked() if self.marked else None
            return next_head(connection, self.records, self.heads, self.agent, marked)

    def _keep(self, number: int, signed: bytes) -> None:
        with transaction(self.engine) as connection:
            keep_head(connection, self.heads, number, signed)

"""The leases of this process: which requests it works on, said again while it does."""

import asyncio

from host_agent.keydb import LEASE_SECONDS, KeyDatabase

RENEW_SECONDS = LEASE_SECONDS / 3
"""So that two renewals may fail before another process takes a request over."""


class Leases:
    """What this process holds; how long it may is in the database."""

    def __init__(self, database: KeyDatabase) -> None:
        self._database = database
        self._held: set[bytes] = set()

    def hold(self, key_id: bytes) -> None:
        """Remember that the database gave this process the lease of a request."""
        self._held.add(key_id)

    def holds(self, key_id: bytes) -> bool:
        """Tell whether this process works on a request."""
        return key_id in self._held

    def forget(self, key_id: bytes) -> None:
        """Renew it no more: the request is answered, or the lease runs out by itself."""
        self._held.discard(key_id)

    async def let_go(self, key_id: bytes) -> None:
        """Give a lease back at once; raises SQLAlchemyError, and then it runs out."""
        self.forget(key_id)
        await asyncio.to_thread(self._database.let_go, key_id)

    async def renew(self) -> None:
        """Renew what is held; raises SQLAlchemyError."""
        if self._held:
            await asyncio.to_thread(self._database.renew_leases, tuple(self._held))

"""Threads for the IKE daemon, which may be silent: nobody else waits for them.

asyncio's own are left to the database.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from carnet.errors import IPsecError
from carnet.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

_ASKING = Threads(128, "ike-daemon")
"""As many as Hosts may have connections."""
_ENDING = Threads(256, "ending")
AT_ONCE = 128
"""Ends, each of which may wait for a peer. None that waits holds a thread of charon's."""

ask = _ASKING.do
"""Has a thread ask or tell the daemon, or what stands beside it; raises what that raises."""


class Endings:
    """Ends tunnels, some at a time; as long as the daemon is silent, all together.

    Each waits for it as long as it is silent, and takes what it left out of the kernel; but once
    one has waited in vain the others ask it briefly (carnet.ipsec.unanswered). So all of them
    take hardly more than one time limit, however many they are.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._under_way = 0
        self._silent = False

    async def do(self, end: Callable[P, T], *about: P.args, **named: P.kwargs) -> T:
        """Have a thread end one, when it is its turn; raises what that raises."""
        async with self._turn():
            return await _ENDING.do(end, *about, **named)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._silent or self._under_way < AT_ONCE)
            self._under_way += 1
        try:
            yield
        except IPsecError:
            self._silent = True
            raise
        else:
            self._silent = False
        finally:
            self._under_way -= 1
            async with self._changed:
                self._changed.notify_all()

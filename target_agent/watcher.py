"""What watches the IKE daemon, on a thread, and tells the event loop what happens there."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver, TunnelEvent
from carnet.worker import Worker

RETRY_SECONDS = 1.0
"""Between attempts at a daemon that does not answer."""


class Listener(Protocol):
    """Who is told; each in the event loop, in the order in which it happened."""

    def daemon_answers(self) -> None:
        """Hear that it is watched from now on; what happened before was not seen."""

    def daemon_silent(self, sentence: str) -> None:
        """Hear that the daemon cannot be watched, and why; it is tried again."""

    def daemon_gone(self) -> None:
        """Hear that the daemon went away."""

    def happened(self, event: TunnelEvent) -> None:
        """Hear that a tunnel of ours came up or went down."""


class Watcher:
    """Watches until stop(), however often the daemon goes and comes."""

    def __init__(self, driver: Driver, listener: Listener) -> None:
        self._driver = driver
        self._listener = listener
        self._closing = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._worker = Worker("ike-watcher")

    async def watch(self) -> None:
        """Watch until stop(); raises what nobody expected, and may be called again then."""
        await self._worker.call(self._run)

    async def stop(self) -> None:
        """Stop, and wait until nothing more can be told."""
        self._closing.set()
        self._driver.close()
        await self._worker.call(lambda: None)
        self._worker.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._watch()
            self._closing.wait(RETRY_SECONDS)

    def _watch(self) -> None:
        try:
            events = self._driver.watch()
        except IPsecError as error:
            self._tell(self._listener.daemon_silent, error.sentence)
            return
        if self._closing.is_set():
            # stop() may have closed what was watched before this watch began.
            self._driver.close()
        self._tell(self._listener.daemon_answers)
        for event in events:
            self._tell(self._listener.happened, event)
        if not self._closing.is_set():
            self._tell(self._listener.daemon_gone)

    def _tell(self, callback: Callable[..., None], *facts: object) -> None:
        self._loop.call_soon_threadsafe(callback, *facts)

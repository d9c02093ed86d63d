"""The service manager that started a service, told of it as sd_notify(3) says.

A few lines of the protocol: one datagram of assignments, to the socket that NOTIFY_SOCKET
names. Without a manager nobody is told.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress

import structlog

log = structlog.get_logger()

_SOCKET, _WATCHDOG, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Manager:
    """Who is told; the variables that say so are taken out, so that no child tells anything."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop(_SOCKET, "")
        usec, pid = environment.pop(_WATCHDOG, ""), environment.pop(_PID, "")
        meant = not pid or pid == str(os.getpid())
        self.watchdog_seconds = int(usec) / 1e6 if usec.isdecimal() and meant else None
        """Within which the service must say again that it is well; None: it need not."""

    def ready(self) -> None:
        """Say that it serves."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Say that it reads its configuration again; ready() says that it has."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """Say that it lets its requests end."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Say that it is well."""
        self._tell("WATCHDOG=1")

    def alive_unless(self, failed: list[str]) -> None:
        """Say so unless something of this has failed, which the log is told."""
        if failed:
            log.critical("watchdog-unfed", failed=failed)
        else:
            self.alive()

    async def keep_alive(self, failed: Callable[[], list[str]]) -> None:
        """Say in each third of a period that it is well, unless something has failed; for ever.

        What failed may be begun anew, and it is well again. If that does not help it says
        nothing any more, as whoever hangs; both have the manager start it anew.
        """
        if self.watchdog_seconds is None:
            return
        while True:
            self.alive_unless(failed())
            await asyncio.sleep(self.watchdog_seconds / 3)

    def _tell(self, *assignments: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)  # a manager that does not listen holds nobody up
            to.sendto("\n".join(assignments).encode(), address)

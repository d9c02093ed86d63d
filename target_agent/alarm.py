"""Waiting for a moment of the day, on a machine whose clock may be set or which may sleep.

An event loop counts in CLOCK_MONOTONIC (clock_gettime(2)), which stands still while the
machine is suspended and knows nothing of a clock that is set. So the wall clock is looked
at again and again.
"""

import asyncio
import time
from collections.abc import Callable

LOOK_SECONDS = 10.0
"""How late an alarm may be after the clock was set forward, or the machine has slept."""


class Alarm:
    """Calls once, when it is that moment (seconds since 1970) by the wall clock, or later."""

    def __init__(self, moment: float, ring: Callable[[], object]) -> None:
        self._moment = moment
        self._ring = ring
        self._timer = self._wait()

    def _wait(self) -> asyncio.TimerHandle:
        left = max(0.0, self._moment - time.time())
        return asyncio.get_running_loop().call_later(min(left, LOOK_SECONDS), self._look)

    def _look(self) -> None:
        if time.time() >= self._moment:
            self._ring()
        else:
            self._timer = self._wait()

    def cancel(self) -> None:
        """Have it not call, if it has not yet."""
        self._timer.cancel()

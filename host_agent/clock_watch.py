"""Whether the clock by which pairs expire and requests grow old has gone on as time does.

Expiry cannot be undone. A clock that leaps far ahead while the Host runs would end all pairs
with a last day at one sweep, and refuse as too late, under seal, whatever is on its way; a
request with a pair that is past its last day is refused as long as the clock says so, and that
can be undone. So both wait: until the clock is back, or, where nobody has put it back within
a day, or the Host is started anew, go by it.
"""

import time
from collections.abc import Callable

LEAP_SECONDS = 300
"""What a clock that is being corrected may gain between two looks."""
BELIEVED_SECONDS = 86_400
"""After which a clock that has leapt is taken for right."""


def since_boot() -> float:
    """Return the seconds for which this machine has run or slept; no clock that is set moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Compares a clock with the time that passes, look by look."""

    def __init__(self, passed: Callable[[], float] = since_boot) -> None:
        self._passed = passed
        self._offset: float | None = None
        self._leapt: tuple[float, float] | None = None
        """When it leapt, and to which offset."""

    def leap(self, now: int) -> int:
        """Return by how many seconds the clock has leapt ahead; 0 where it is believed.

        One that leaps on is not believed for having leapt before.
        """
        passed = self._passed()
        offset = now - passed
        if self._offset is None or offset - self._offset <= LEAP_SECONDS:
            return self._believe(offset)
        if self._leapt is None or offset - self._leapt[1] > LEAP_SECONDS:
            self._leapt = passed, offset
        if passed - self._leapt[0] >= BELIEVED_SECONDS:
            return self._believe(offset)
        return round(offset - self._offset)

    def _believe(self, offset: float) -> int:
        self._offset, self._leapt = offset, None
        return 0

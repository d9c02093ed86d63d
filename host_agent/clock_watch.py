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
        self._believed: float | None = None
        """By how much the clock was ahead of the time that has passed, when it was believed."""
        self._steady: tuple[float, float] | None = None
        """Since when it has gone on as time does, and how far ahead it was then."""

    def leap(self, now: int) -> int:
        """Return by how many seconds the clock has leapt ahead; 0 where it is believed.

        Of one that has leapt, ahead or back, where it was before stays believed for a day: it
        may be put right, and has not leapt then. `now` is its time as this is called.
        """
        passed = self._passed()
        offset = now - passed
        if self._steady is None or _is_far(offset, self._steady[1]):
            self._steady = passed, offset
        is_settled = passed - self._steady[0] >= BELIEVED_SECONDS
        if self._believed is None or is_settled or not _is_far(offset, self._believed):
            self._believed = offset
        return max(0, round(offset - self._believed))

    @property
    def steady_for(self) -> float:
        """For how many seconds the clock has gone on as time does, as far as was looked."""
        return 0 if self._steady is None else self._passed() - self._steady[0]


def _is_far(offset: float, other: float) -> bool:
    return abs(offset - other) > LEAP_SECONDS

"""A clock that nobody sets: seconds since the machine's boot, its sleep included."""

import time
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def uptime() -> float | None:
    """Return the seconds since this boot (CLOCK_BOOTTIME); None where no clock tells."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux alone has it
    return None if clock is None else time.clock_gettime(clock)


@cache
def boot_id() -> str | None:
    """Return which boot this is (random(4)); None where nothing tells."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


def seconds_since(boot: str | None, moment: float | None) -> float | None:
    """Return how long ago a moment of a boot was; None if it is not known, or was another boot."""
    now = uptime()
    if now is None or moment is None or boot is None or boot != boot_id():
        return None
    return now - moment

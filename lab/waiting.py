"""Waiting for what other processes bring about."""

import time
from collections.abc import Callable

from lab.errors import LabError

STEP = 0.02
"""Seconds between two looks."""

TIME_LIMIT = 15.0
"""Seconds after which whatever has not happened will not happen."""


def wait_until(holds: Callable[[], bool], what: str, seconds: float = TIME_LIMIT) -> None:
    """Return as soon as it holds; raise LabError if it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise LabError(f"After {seconds:g} seconds still waiting for {what}.")
        time.sleep(STEP)

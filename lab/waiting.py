"""Waiting for what other processes bring about."""

import time
from collections.abc import Callable

from lab.errors import LabError

STEP = 0.02
"""Seconds between two looks, at least."""

IN_GUEST = "CARNET_IN_GUEST"
"""Set in the environment of what runs in a guest kernel (lab.guest)."""

TIME_LIMIT = 60.0
"""Seconds after which whatever has not happened will not happen, on a busy machine too."""


def wait_until(holds: Callable[[], bool], what: str, seconds: float = TIME_LIMIT) -> None:
    """Return as soon as it holds; raise LabError if it does not within so many seconds.

    A look that takes long is not taken as often: half of the time is left to what is
    waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if holds():
            return
        now = time.monotonic()
        if now > deadline:
            raise LabError(f"After {seconds:g} seconds still waiting for {what}.")
        time.sleep(max(STEP, now - began))

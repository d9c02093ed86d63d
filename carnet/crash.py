"""Named places between durable steps, at which a test may kill the process.

Switched on only by the environment variable CARNET_CRASH_AT, which whoever starts
the process sets; without it, reach() does nothing.
"""

import os
import signal

_chosen = os.environ.get("CARNET_CRASH_AT")


def reach(place: str) -> None:
    """Die here, as by SIGKILL or power loss, if this is the place chosen."""
    if place == _chosen:
        os.kill(os.getpid(), signal.SIGKILL)

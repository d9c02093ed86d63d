"""Named places between durable steps, at which a test may kill the process.

Switched on only by the environment variable CARNET_CRASH_AT, which whoever starts
the process sets: a name, or `@FILE` for the name that stands in a file by then. Without
it, reach() does nothing. docs/CRASHES.md lists the places.
"""

import os
import signal
from pathlib import Path

_chosen = os.environ.get("CARNET_CRASH_AT", "")


def reach(place: str) -> None:
    """Die here, as by SIGKILL or power loss, if this is the place chosen."""
    if _chosen and place == _now_chosen():
        os.kill(os.getpid(), signal.SIGKILL)


def _now_chosen() -> str:
    if not _chosen.startswith("@"):
        return _chosen
    path = Path(_chosen[1:])
    return path.read_text().strip() if path.exists() else ""

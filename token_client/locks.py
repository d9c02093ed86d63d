"""Locks as files in the directory in memory: each goes with its process.

No library's: `filelock` would be loaded as each tunnel begins, which takes longer than all else
that is done with a lock.
"""

import os
import time
from pathlib import Path

_STEP_SECONDS = 0.05


def taken(path: Path, seconds: float) -> int | None:
    """Return the descriptor of a lock; None if it is another's for so long.

    Raises OSError where there can be none.
    """
    import fcntl  # noqa: PLC0415  Windows has none, nor such a directory

    until = time.monotonic() + seconds
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:  # else who had it before has just removed it
                return lock
        except BlockingIOError:
            pass
        os.close(lock)
        if time.monotonic() >= until:
            return None
        time.sleep(_STEP_SECONDS)


def give_back(path: Path, lock: int) -> None:
    """Let go of a lock, and leave no file."""
    if os.fstat(lock).st_nlink:  # else it was removed meanwhile, and its name is another's
        path.unlink(missing_ok=True)
    os.close(lock)

"""Who watches over a tunnel: one at a time, whose lock goes with its process."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from token_client.memory import memory_directory

_SECONDS = 1.0
"""For which the lock is waited for: `carnet status` holds it for a moment as it looks."""
_STEP_SECONDS = 0.05


@contextmanager
def watching(name: str) -> Iterator[bool]:
    """Be who watches over a tunnel in here; yields False where somebody else is.

    A process that is forked in here would have the lock as well. Without a file system in
    memory there is nobody to tell.
    """
    directory = memory_directory()
    if directory is None:
        yield True
        return
    path = _lock(directory, name)
    lock = _taken(path)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        if os.fstat(lock).st_nlink:  # else the session was dropped, and its name is another's
            path.unlink(missing_ok=True)
        os.close(lock)


def _taken(path: Path) -> int | None:
    """Return the lock's descriptor; None if it is another's.

    No library's: `filelock` would be loaded for each tunnel as it begins.
    """
    import fcntl  # noqa: PLC0415  as below

    until = time.monotonic() + _SECONDS
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


def is_watched(directory: Path | None, name: str) -> bool:
    """Tell whether a process watches over a tunnel."""
    if directory is None:
        return False
    import fcntl  # noqa: PLC0415  Windows has none, nor such a directory

    try:
        lock = _lock(directory, name).open("rb")
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock(directory: Path, name: str) -> Path:
    return directory / f"agent-{name}.lock"

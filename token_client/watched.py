"""Who watches over a tunnel: one at a time, whose lock goes with its process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from token_client.locks import give_back, taken
from token_client.memory import memory_directory

_SECONDS = 1.0
"""For which the lock is waited for: `carnet status` holds it for a moment as it looks."""


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
    lock = taken(path, _SECONDS)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        give_back(path, lock)


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

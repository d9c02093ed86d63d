"""One at a time who brings up a user's tunnels."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from token_client.memory import memory_directory


@contextmanager
def alone(waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only `carnet connect` of this user, so that no two take the same key pair.

    Nor does each end the other's tunnel as an older one. `waits` is called where another is at
    work, before that is waited for.
    """
    directory = memory_directory()
    if directory is None:
        yield
        return
    import fcntl  # noqa: PLC0415  Windows has none, nor such a directory

    descriptor = os.open(directory / "connect.lock", os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor) as lock:  # which lets go of it, too
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waits()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield

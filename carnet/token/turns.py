"""One program at a time gives a token its PIN: what the token tells of its tries holds till then.

Two that looked at once would each find two tries left, and take both with a wrong PIN. So
whoever looks holds a lock until the token has judged: a file for each token, in a directory
of the user's own, gone when nobody is at it.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carnet.errors import TokenAwayError
from carnet.token.identity import Identity

WAIT_SECONDS = 5.0
"""For how long a turn is waited for: a login takes less."""
_LOOK_SECONDS = 0.05
_held: Counter[str] = Counter()
"""How often this process has the turn at a token: its threads share one login."""


@contextmanager
def turn_at(token: Identity) -> Iterator[None]:
    """Be this user's only process on this machine that gives this token a PIN.

    Where no lock can be had there is none. Raises TokenAwayError where another one has the turn.
    """
    lock = None if _held[token.mark] else _lock(token)
    _held[token.mark] += 1
    try:
        yield
    finally:
        _held[token.mark] -= 1
        if lock is not None:
            lock.close()


class _Lock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def close(self) -> None:
        """Give the turn to the next one, who finds the file gone and makes another."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def _lock(token: Identity) -> _Lock | None:
    """Wait for the lock; None where there are none, as on Windows, or no place for one."""
    if os.name != "posix":
        return None
    until = time.monotonic() + WAIT_SECONDS
    try:
        path = _place(token)
        while (lock := _locked(path)) is None:
            if time.monotonic() > until:
                raise TokenAwayError(
                    f"Another program is giving token {token} its PIN, or will again since the "
                    f"token did not say whether it is right; wait for it, or end it."
                )
            time.sleep(_LOOK_SECONDS)
    except (OSError, RuntimeError):
        return None
    return lock


def _locked(path: Path) -> _Lock | None:
    """Lock the file of that name; None where another one has it, or has just removed it."""
    import fcntl  # noqa: PLC0415  Windows has none

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return _Lock(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _place(token: Identity) -> Path:
    """Return the lock's place, the same for all of a user's programs; RuntimeError without one.

    In memory where the user has logged in; a service has its home alone.
    """
    login = Path(f"/run/user/{os.getuid()}")
    name = f"carnet-login-{token.mark}.lock"
    return login / name if os.access(login, os.W_OK) else Path.home() / f".{name}"

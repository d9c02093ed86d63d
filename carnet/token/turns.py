"""One program at a time gives a token its PIN: what the token tells of its tries holds till then.

Two that looked at once would each find two tries left, and take both with a wrong PIN. So
whoever looks holds a lock until the token has judged: a file for each token, in a directory
that all programs of the user have, gone when nobody is at it. Where there is none that can be
locked no PIN is given.

No library's: `filelock` leaves its file behind, so one for each card that was ever used.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Lock

from carnet.errors import TokenAwayError, TokenError
from carnet.token.identity import Identity
from carnet.token.module import Token, TokenInfo
from carnet.token.profiles import may_lock

WAIT_SECONDS = 5.0
"""For how long a turn is waited for: a login takes less."""
_LOOK_SECONDS = 0.05
_OF_ALL = Path("/tmp")  # noqa: S108  a link there is not followed, and nothing is written


class _Turn:
    """This process's turn at a token, which its threads share, as they share one login."""

    def __init__(self, lock: "_Lock | None") -> None:
        self.lock = lock
        self.count = 0


_turns: dict[str, _Turn] = {}
_guard = Lock()
"""Of _turns, and of getting a lock."""


@contextmanager
def trying(token: Token, info: TokenInfo) -> Iterator[TokenInfo]:
    """Have the turn for one try of a PIN at a token that told this of itself before.

    Yields what it tells by now, where wrong PINs may lock it. Raises what turn_at() raises, and
    Token.look_anew().
    """
    with turn_of(info):
        if may_lock(info):
            token.look_anew()
            info = token.info
        yield info


def turn_of(info: TokenInfo) -> AbstractContextManager[None]:
    """Return the turn at a token that wrong PINs may lock; no other needs one."""
    return turn_at(info.identity) if may_lock(info) else nullcontext()


@contextmanager
def turn_at(token: Identity) -> Iterator[None]:
    """Be this user's only process on this machine that gives this token a PIN.

    On Windows there is no lock. Raises TokenAwayError where another one has the turn,
    TokenError where no lock can be had.
    """
    with _guard:
        turn = _turns.get(token.mark) or _Turn(_lock(token))
        turn.count += 1
        _turns[token.mark] = turn
    try:
        yield
    finally:
        with _guard:
            turn.count -= 1
            if not turn.count:
                del _turns[token.mark]
                if turn.lock is not None:
                    turn.lock.close()


class _Lock:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def close(self) -> None:
        """Give the turn to the next one, who finds the file gone and makes another."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def _lock(token: Identity) -> _Lock | None:
    """Wait for the lock; None on Windows, which has none of this kind."""
    if os.name != "posix":
        return None
    until = time.monotonic() + WAIT_SECONDS
    while (lock := _locked_somewhere(token)) is None:
        if time.monotonic() > until:
            raise TokenAwayError(
                f"Another program is giving token {token} its PIN, or will again since the "
                f"token did not say whether it is right; wait for it, or end it."
            )
        time.sleep(_LOOK_SECONDS)
    return lock


def _locked_somewhere(token: Identity) -> _Lock | None:
    """Lock the first file that can be: what is in the way of one is so for all programs."""
    name = f".carnet-login-{os.getuid()}-{token.mark}.lock"
    tried: list[str] = []
    for directory in _directories():
        try:
            return _locked(directory / name)
        except OSError as error:
            tried.append(f"{directory / name} ({error.strerror})")
    raise TokenError(
        f"Token {token} was not given its PIN, for another program could give it one meanwhile, "
        f"and no file can be locked against that: {', '.join(tried)}; remove such a file, or make "
        f"one of the directories writable."
    )


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


def _directories() -> Iterator[Path]:
    """Yield where the lock may be, in the order in which all of a user's programs look.

    In memory where the user has logged in; a service has its home alone, and some have none.
    """
    yield Path(f"/run/user/{os.getuid()}")
    with suppress(RuntimeError):
        yield Path.home()
    yield _OF_ALL

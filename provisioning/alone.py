"""One mint at a time on a token: each would take the other's pairs for those of one cut off."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from carnet.errors import UsageError


@contextmanager
def alone_on(serial: str) -> Iterator[None]:
    """Be this user's only mint on the token with this serial number, on this machine.

    Where no lock can be had there is none; what is read back shows another mint, too.
    Raises UsageError if another one runs.
    """
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(_path(serial), timeout=0, mode=0o600))
        except Timeout as error:
            raise UsageError(
                "Another mint runs on this token; wait until it is over, and mint again."
            ) from error
        except OSError:
            pass
        yield


def _path(serial: str) -> Path:
    """Return the lock's place; OSError where this user has no directory of her own for it."""
    name = hashlib.sha256(serial.encode()).hexdigest()[:16]
    with warnings.catch_warnings():
        # Which directory it is matters to nobody: platformdirs checks that it is the user's.
        warnings.simplefilter("ignore")
        return platformdirs.user_runtime_path("carnet", ensure_exists=True) / f"mint-{name}.lock"

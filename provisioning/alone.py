"""One mint at a time on a token: each would take the other's pairs for those of one cut off.

And nobody wipes a token under a mint, which would go on with its cover and its last pair.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from carnet.errors import UsageError
from carnet.token.identity import Identity


@contextmanager
def alone_on(token: Identity) -> Iterator[None]:
    """Be this user's only mint on this token, or the only one to wipe it, on this machine.

    Where no lock can be had there is none; what is read back shows another mint, too.
    Raises UsageError if another one is at it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(_path(token), timeout=0, mode=0o600))
        except Timeout as error:
            raise UsageError(
                "Another mint runs on this token, or it is just being wiped; wait until that is "
                "over, and repeat the command."
            ) from error
        except OSError:
            pass
        yield


def _path(token: Identity) -> Path:
    """Return the lock's place; OSError where this user has no directory of her own for it."""
    with warnings.catch_warnings():
        # Which directory it is matters to nobody: platformdirs checks that it is the user's.
        warnings.simplefilter("ignore")
        return (
            platformdirs.user_runtime_path("carnet", ensure_exists=True) / f"mint-{token.mark}.lock"
        )

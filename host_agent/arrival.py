"""A batch that has just come: whose it is must be read first, and revocations wait for that.

By a lock at the database, which holds for all processes of the Host, the operator's commands
included, and goes with the process that has it.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from carnet.database import alone
from carnet.database.suspension import held_back
from carnet.errors import UsageError
from host_agent.keydb import KeyDatabase

WAIT_SECONDS = 60
"""A batch of 100,000 pairs takes a quarter of that, on a busy machine."""
_PAUSE = 0.05
_WORD = "arrives"


class NotArrivedError(UsageError):
    """A batch that nothing is known of yet has been coming for too long."""

    def __init__(self) -> None:
        super().__init__(
            "What is known of it is revoked, and a process of the Host has a batch of which "
            "nothing is known yet; see that it runs, then revoke it again."
        )


@contextmanager
def arriving(database: KeyDatabase) -> Iterator[None]:
    """Have revocations wait, until it is written down that the batch's import is under way.

    For whoever is the only one to import. Raises UsageError if another process that looks
    whether it is so stands still; OSError, SQLAlchemyError.
    """
    until = time.monotonic() + WAIT_SECONDS
    with ExitStack() as lock:
        while not lock.enter_context(alone(database.engine, _WORD))():
            # Somebody looks whether it is had.
            lock.close()
            if time.monotonic() > until:
                raise UsageError(
                    "Another process of the Host, or a command of its operator, that was about "
                    "to revoke stands still; see that it runs or end it, then send the batch again."
                )
            time.sleep(_PAUSE)
        yield


def wait_for_arrival(database: KeyDatabase) -> None:
    """Wait until nobody is within arriving().

    Raises NotArrivedError if that takes too long; OSError, SQLAlchemyError.
    """
    until = time.monotonic() + WAIT_SECONDS
    while not _is_free(database):
        if time.monotonic() > until:
            raise NotArrivedError
        time.sleep(_PAUSE)


def _is_free(database: KeyDatabase) -> bool:
    # A command that is stopped here (Ctrl-Z) would keep a batch from arriving.
    with held_back(), alone(database.engine, _WORD) as is_free:
        return is_free()

"""Reading what somebody else may have written into the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from carnet.errors import CarnetError


@contextmanager
def readable() -> Iterator[None]:
    """Say in one sentence that a value is of no kind that was ever written; raises CarnetError.

    For what reads the database and nothing else: what it says must not be said of a mistake
    in an argument, or of an output that takes nothing.
    """
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CarnetError(
            f"The database was changed: it holds what was never written ({error}); keep it, and "
            f"compare it with a backup."
        ) from error

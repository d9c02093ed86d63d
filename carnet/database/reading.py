"""Reading what somebody else may have written into the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from carnet.errors import CarnetError

_NOT_TEXT = "Could not decode"
"""What SQLite's driver says of text that is none."""


@contextmanager
def readable() -> Iterator[None]:
    """Say in one sentence that a value is of no kind that was ever written; raises CarnetError.

    For what reads the database and nothing else: what it says must not be said of a mistake
    in an argument, or of an output that takes nothing.
    """
    try:
        yield
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise _changed(str(error)) from error
    except DBAPIError as error:
        if not is_no_text(error):
            raise
        raise _changed(str(error.orig)) from error


def is_no_text(error: Exception) -> bool:
    """Tell whether the driver stumbled over text that is none."""
    return isinstance(error, DBAPIError) and _NOT_TEXT in str(error.orig)


def _changed(found: str) -> CarnetError:
    return CarnetError(
        f"The database was changed: it holds what was never written ({found}); keep it, and "
        f"compare it with a backup."
    )

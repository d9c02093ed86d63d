"""A tunnel stands whole, or nothing of it is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from carnet.errors import IPsecError


@contextmanager
def all_or_nothing(
    down: Callable[[str], None], name: str, *, but: tuple[type[IPsecError], ...] = ()
) -> Iterator[None]:
    """Take all of the tunnel down if something in here fails; that failure is what counts.

    After `but` it is left as it is.
    """
    try:
        yield
    except but:
        raise
    except BaseException as failure:
        try:
            down(name)
        except IPsecError as error:
            failure.add_note(error.sentence)
        raise

"""What is done on threads beside: several things at once, so that a slow one delays few others."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from carnet.errors import AwayError

THREAD = "guard"
"""Of each such thread."""

AT_ONCE = 4
"""So many things: as many threads, and sessions of the IPsec daemon's."""


def begin(what: Callable[..., None], *about: object) -> threading.Thread:
    """Do that on a thread of its own."""
    thread = threading.Thread(target=what, args=about, daemon=True, name=THREAD)
    thread.start()
    return thread


def each_of(names: Iterable[str], do: Callable[[str], None]) -> None:
    """Do that to each, whatever comes of the others, a few at once; return when all is done.

    Where the system lets nobody have another thread it is one after the other. Raises what came
    of one of them: AwayError if any did, so that it is tried again.
    """
    left, errors = deque(names), list[Exception]()

    def work() -> None:
        while True:
            try:
                name = left.popleft()
            except IndexError:
                return
            try:
                do(name)
            except Exception as error:  # noqa: BLE001  raised below
                errors.append(error)

    beside = []
    for _ in range(min(len(left), AT_ONCE) - 1):
        with suppress(RuntimeError):
            beside.append(begin(work))
    work()
    for thread in beside:
        thread.join()
    for error in sorted(errors, key=lambda each: not isinstance(each, AwayError)):
        raise error

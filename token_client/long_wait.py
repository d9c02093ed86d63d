"""Saying that a command goes on where that takes long: on a terminal, where a person waits."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG_SECONDS = 2.0
_ENDING = (
    "The tunnel is being ended; the IPsec daemon and Target are waited for if they do not answer,"
    " some ten seconds at most."
)


@contextmanager
def said_if_long(tell: Callable[[str], None]) -> Iterator[None]:
    """End a tunnel in here; whoever waits for it is told what for."""
    timer = threading.Timer(LONG_SECONDS, tell, [_ENDING])
    timer.daemon = True
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()  # nothing is to be said after the outcome

"""An end for commands that would wait for ever for a PC/SC service that stands still.

A module's call waits for the service without end, and nothing can take a thread back out
of it. Where the service only has much to do, or a person is at the PIN pad, it still lets
others in: that is asked, on another thread, and it alone decides.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LIBRARY = "libpcsclite.so.1"
_SYSTEM_SCOPE = 2
_PATIENCE_SECONDS = 10.0
"""After which the service is asked, and again each time."""
_ANSWER_SECONDS = 20.0
"""It may have to be started, which systemd does at the first call."""
_EXIT_STATUS = 4
_SENTENCE = (
    "carnet: The smart-card service (pcscd) is there but does not answer; restart it "
    "(`systemctl restart pcscd`), and repeat the command."
)


@contextmanager
def unless_frozen() -> Iterator[None]:
    """End the process with one sentence, as a kill would, if the service stands still meanwhile.

    For what is over in an instant and leaves nothing half done.
    """
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), name="frozen", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event) -> None:
    while not over.wait(_PATIENCE_SECONDS):
        if not _answers() and not over.is_set():
            with suppress(OSError):
                sys.stderr.write(f"{_SENTENCE}\n")
                sys.stderr.flush()
            os._exit(_EXIT_STATUS)


def _answers() -> bool:
    """Tell whether the service lets another in; one that is not there keeps nobody waiting."""
    asking = threading.Thread(target=_ask, name="asking", daemon=True)
    asking.start()
    asking.join(_ANSWER_SECONDS)
    return not asking.is_alive()


def _ask() -> None:
    # Through ctypes, which lets the other threads go on meanwhile.
    with suppress(OSError):
        library = ctypes.CDLL(_LIBRARY)
        context = ctypes.c_long()
        if library.SCardEstablishContext(_SYSTEM_SCOPE, None, None, ctypes.byref(context)) == 0:
            library.SCardReleaseContext(context)

"""An end for commands that would wait for ever for a PC/SC service that stands still.

A module's call waits for the service without end, and nothing can take a thread back out
of it. Where the service only has much to do, or a person is at the PIN pad, it still lets
others in: that is asked, on another thread, and it alone decides.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

FROZEN = (
    "The smart-card service (pcscd) is there but does not answer; restart it "
    "(`systemctl restart pcscd`), and repeat the command."
)
EXIT_STATUS = 4

_LIBRARY = "libpcsclite.so.1"
_SYSTEM_SCOPE = 2
_PATIENCE_SECONDS = 10.0
"""After which the service is asked, and again each time."""
_ANSWER_SECONDS = 20.0
"""It may have to be started, which systemd does at the first call."""
_OVER_SECONDS = 1.0
"""For which who watched is waited for: longer only where it just asks the service."""
_TOKENS = ("carnet.token.", "pkcs11.")
"""Modules in whose calls a token is waited for."""
_acting = threading.Lock()
"""Held by the one that acts, where several watch over one wait."""


def say_so() -> int:
    """Say in one sentence that the service stands still; return the exit status."""
    with suppress(OSError):
        sys.stderr.write(f"{_command()}: {FROZEN}\n")
        sys.stderr.flush()
    return EXIT_STATUS


def _command() -> str:
    name = Path(sys.argv[0]).name
    return name if name.startswith("carnet") else "carnet"


@contextmanager
def unless_frozen(act: Callable[[], int | None] = say_so) -> Iterator[None]:
    """End the process, as a kill would, where a token is waited for and the service stands still.

    For what may be ended so wherever it calls a token. `act` is called first, on another
    thread while this one waits, and returns the exit status; or None, to go on waiting.
    """
    over = threading.Event()
    watched = (over, threading.get_ident(), act)
    watcher = threading.Thread(target=_watch, args=watched, name="frozen", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        # Python may end next, and no thread is to wake up as it does.
        watcher.join(_OVER_SECONDS)


def _watch(over: threading.Event, caller: int, act: Callable[[], int | None]) -> None:
    while not over.wait(_PATIENCE_SECONDS):
        if not _waits_for_token(caller) or _answers():
            continue
        with _acting:
            if not over.is_set() and _waits_for_token(caller):
                status = act()
                if status is not None:
                    os._exit(status)


def _waits_for_token(thread: int) -> bool:
    """Tell whether a thread is in a call that a token or its reader answers."""
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001  the only way
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_TOKENS):
            return True
        frame = frame.f_back
    return False


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

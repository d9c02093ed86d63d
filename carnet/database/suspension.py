"""Ctrl-Z: a command that holds the database's lock is stopped when it has let go of it.

For SQLite nothing ends the lock of a process that stands still.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Have a stop by the terminal take effect afterwards; in the main thread alone.

    A service works on others, where nobody may say what becomes of a signal. SIGSTOP cannot
    be held back.
    """
    if not _may_be_stopped():
        yield
        return
    heard: list[int] = []
    signal.signal(signal.SIGTSTP, lambda number, _: heard.append(number))
    # Ignored, for a write would be tried again and again after a handler: in the background
    # the progress bar writes all the same, where the terminal would stop it (`stty tostop`).
    output = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTTOU, output)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        if heard:
            signal.raise_signal(signal.SIGTSTP)


def _may_be_stopped() -> bool:
    """Tell whether that is so, and is not held back already."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL

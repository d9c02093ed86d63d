"""Ctrl-Z while a command watches over a tunnel: it goes on, for nobody else would watch.

A process that stands still notices neither a token that is pulled nor the end of a session, and
keeps the lock by which others see that somebody watches. SIGSTOP nobody can pass over.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_GOES_ON = (
    "This command watches over the tunnel and its token, so it is not stopped: Ctrl-C ends the"
    " tunnel, and without --foreground one is watched over in the background."
)


@contextmanager
def unstopped(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass over a stop by the terminal in here, and say so; in the main thread alone.

    Also over one for what is written by a command in the background (`stty tostop`). What the
    command ignored when it began stays ignored.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "SIGTSTP")):  # Windows has no such stop
        yield
        return

    def go_on(*_: object) -> None:
        # On a thread, for it may come in the middle of another sentence.
        threading.Thread(target=tell, args=(_GOES_ON,), name="not stopped", daemon=True).start()

    stopped = signal.getsignal(signal.SIGTSTP)
    if stopped is not signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, go_on)
    # Ignored, for after a handler a write would be tried again and again.
    output = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTTOU, output)
        signal.signal(signal.SIGTSTP, stopped)

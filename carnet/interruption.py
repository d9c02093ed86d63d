"""Ctrl-C, a terminal that closes, and being ended by somebody: one KeyboardInterrupt."""

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """Have the first of these signals interrupt this command, and let those after it pass.

    A terminal that closes sends two, and who is impatient presses Ctrl-C again: what an
    interrupted command puts in order is not to be cut off. A signal that was ignored when
    the command began, as by nohup, stays ignored.
    """
    heard = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)

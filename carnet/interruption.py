"""Ctrl-C, a terminal that closes, and being ended by somebody: one KeyboardInterrupt."""

import signal
import sys
from types import FrameType

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
"""Those that there are: on Windows a console that closes is SIGBREAK."""
_AGAIN_SECONDS = 0.05
_PACKING = "pkcs11.attributes"
"""What python-pkcs11 packs templates with, one attribute after the other. Where that raises it
frees all of the template, and crashes at what it has not written yet."""


class _Interruption:
    """What this process has heard of the signals so far."""

    heard = False
    """One of them interrupted, or waits to; those after it pass."""
    held = False
    """What goes on is to be finished."""
    waiting = False


_this = _Interruption()


def listen() -> None:
    """Have the first of these signals interrupt this command, and let those after it pass.

    A terminal that closes sends two, and who is impatient presses Ctrl-C again: what an
    interrupted command puts in order is not to be cut off. A signal that was ignored when
    the command began, as by nohup, stays ignored.
    """
    _this.heard = _this.held = _this.waiting = False
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _interrupt)
    sys.unraisablehook = _ignored


def hold() -> None:
    """Have a signal wait until let_go(): what goes on now is over soon, and best finished.

    The second one does not wait, for what takes long after all.
    """
    _this.held = not _this.heard


def let_go(what_stands: str) -> None:
    """Interrupt now if a signal waited; the half sentence says what it did not prevent.

    Raises KeyboardInterrupt.
    """
    _this.held = False
    if _this.waiting:
        _this.waiting, _this.heard = False, True
        raise KeyboardInterrupt(what_stands)


def over() -> None:
    """Let all signals pass: the command is done, and its exit status is what it has done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one that was to come again


def _packs(frame: FrameType | None) -> bool:
    """Tell whether an error, raised here, would crash python-pkcs11."""
    while frame is not None:
        if frame.f_globals.get("__name__") == _PACKING:
            return True
        frame = frame.f_back
    return False


def _interrupt(_number: int, frame: FrameType | None) -> None:
    if _this.held and not _this.waiting:
        _this.waiting = True
    elif not _this.heard and _packs(frame):
        _interrupt_again()
    elif not _this.heard:
        _this.heard, _this.held, _this.waiting = True, False, False
        raise KeyboardInterrupt


def _ignored(what: "sys.UnraisableHookArgs") -> None:
    """Hear of an error that Python could not raise where it happened.

    An interrupt comes again a moment later: around a fork Python ignores it. What an object
    says that is taken apart after one is of something cut off, such as a search on a token
    whose session is closed.
    """
    if issubclass(what.exc_type, KeyboardInterrupt):
        _this.heard = False
        _interrupt_again()
    elif not _this.heard:
        sys.__unraisablehook__(what)


def _interrupt_again() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        return
    from threading import Timer  # noqa: PLC0415  where there are no alarms, as on Windows

    Timer(_AGAIN_SECONDS, signal.raise_signal, [signal.SIGINT]).start()

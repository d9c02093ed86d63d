"""Smart-card readers through PC/SC: what is in them now, and hints that this changed.

An event is a hint and no more: events are lost, and pcscd restarts. So every look asks
the service anew, and whoever is woken by a hint looks. Where there is no PC/SC service, or no
library for it, there are no hints, and the caller looks at an interval of its own.

All looks of a process share one context, which ends with its service: another service counts
its events from the start again, and what is told of its readers may read as before.
"""

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self

LOOK_SECONDS = 0.5
"""Seconds after which to look again although no hint came."""

_WAIT_MILLISECONDS = 1000
_RETRY_SECONDS = 0.3
_NEW_READER = "\\\\?PnP?\\Notification"
"""The name under which PC/SC reports that readers come and go."""
_COUNT_SHIFT = 16
_SLOT_NAME_SIZE = 64
"""Of CK_SLOT_INFO's slotDescription, in bytes."""
_LIBRARY = "libpcsclite.so.1"


@dataclass(frozen=True)
class Reader:
    """A reader, or one slot of it, as PC/SC reports it."""

    name: str
    occupied: bool
    """There is a card in it."""
    count: int
    """How often a card came or went, where the service counts; else 0."""
    held: bool = field(default=False, compare=False)
    """Another program has the card for itself."""
    service: int = 0
    """Which PC/SC service tells this: see service_met()."""

    @property
    def slot_name(self) -> str:
        """The name as a PKCS#11 module gives it to its slot, which is cut off."""
        return self.name.encode()[:_SLOT_NAME_SIZE].decode(errors="ignore").rstrip()


class _ServiceGoneError(Exception):
    """The PC/SC service does not answer, or not any more."""


def look_at_readers() -> tuple[Reader, ...] | None:
    """Return the readers there are now; None if there is no PC/SC service."""
    try:
        return _contact.look()
    except _ServiceGoneError:
        return None


def service_met() -> int:
    """Return the number of the PC/SC service that was looked at last: one more with each restart.

    0 as long as none has answered.
    """
    return _contact.service


class _Contact:
    """This process's contact with the PC/SC service, and with the next one once that is gone."""

    def __init__(self) -> None:
        self.service = 0
        self._context: Any = None
        self._lock = threading.Lock()

    def look(self) -> tuple[Reader, ...]:
        """Ask for the readers; raises _ServiceGoneError."""
        with self._lock:
            if self._context is not None:
                with contextlib.suppress(_ServiceGoneError):
                    return _states(self._context, self.service)
            self._renew()
            return _states(self._context, self.service)

    def _renew(self) -> None:
        old, self._context = self._context, None
        if old is not None:
            with contextlib.suppress(_ServiceGoneError):
                _call("SCardReleaseContext", old)
        self._context = _established()
        self.service += 1


_contact = _Contact()


class ReaderWatcher:
    """Calls `notify` whenever something may have changed at the readers.

    On a thread of its own, which outlives the service: that pcscd went, and that it
    came back, are changes too. Use it as a context manager.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="readers", daemon=True)
        self._waiting: Any = None

    def __enter__(self) -> Self:
        if _scard() is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        while self._thread.is_alive():
            # A cancel that comes before the wait is lost, so it is repeated.
            self._cancel()
            self._thread.join(0.02)

    def _cancel(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            with contextlib.suppress(_ServiceGoneError):
                _call("SCardCancel", waiting)

    def _watch(self) -> None:
        served = True
        while not self._closing.is_set():
            try:
                with _context() as context:
                    served = True
                    self._follow(context)
            except _ServiceGoneError:
                if served:
                    self._notify()
                served = False
                self._closing.wait(_RETRY_SECONDS)

    def _follow(self, context: Any) -> None:
        """Tell of changes as long as the service lives."""
        known = _states(context)
        self._notify()
        while not self._closing.is_set():
            self._waiting = context
            try:
                _wait(context, known)
            finally:
                self._waiting = None
            now = _states(context)
            if now != known:
                known = now
                self._notify()


@cache
def _scard() -> Any:
    """Return pyscard's module; None where there is no PC/SC library on this machine."""
    try:
        if sys.platform == "linux":
            # pyscard would say on standard output that the library is missing.
            ctypes.CDLL(_LIBRARY)
        from smartcard import scard  # noqa: PLC0415 - only where readers are looked at
    except (ImportError, OSError):
        return None
    return scard


@contextmanager
def _context() -> Iterator[Any]:
    context = _established()
    try:
        yield context
    finally:
        _call("SCardReleaseContext", context)


def _established() -> Any:
    if _scard() is None:
        raise _ServiceGoneError
    result, context = _call("SCardEstablishContext", _scard().SCARD_SCOPE_USER)
    _check(result)
    return context


def _call(name: str, *arguments: Any) -> Any:
    """Call a function of pyscard's; whatever it raises means that the service failed."""
    try:
        return getattr(_scard(), name)(*arguments)
    except Exception as error:
        raise _ServiceGoneError from error


def _check(result: int, *harmless: str) -> None:
    """Raise _ServiceGoneError unless the result is success or one of the harmless ones."""
    fine = {getattr(_scard(), name) for name in ("SCARD_S_SUCCESS", *harmless)}
    if result not in fine:
        raise _ServiceGoneError


def _states(context: Any, service: int = 0) -> tuple[Reader, ...]:
    result, names = _call("SCardListReaders", context, [])
    _check(result, "SCARD_E_NO_READERS_AVAILABLE")
    if not names:
        return ()
    unaware = [(name, _scard().SCARD_STATE_UNAWARE) for name in names]
    result, states = _call("SCardGetStatusChange", context, 0, unaware)
    # A reader that is gone since it was listed is missed at the next look.
    _check(result, "SCARD_E_TIMEOUT", "SCARD_E_UNKNOWN_READER")
    return tuple(_reader(name, state, service) for name, state, _ in states)


def _reader(name: str, state: int, service: int) -> Reader:
    scard = _scard()
    return Reader(
        name,
        occupied=bool(state & scard.SCARD_STATE_PRESENT),
        count=state >> _COUNT_SHIFT,
        held=bool(state & scard.SCARD_STATE_EXCLUSIVE),
        service=service,
    )


def _wait(context: Any, known: tuple[Reader, ...]) -> None:
    """Return when something happened at the readers, or after a second."""
    states = [(reader.name, _state(reader)) for reader in known]
    states.append((_NEW_READER, _scard().SCARD_STATE_UNAWARE))
    result, _ = _call("SCardGetStatusChange", context, _WAIT_MILLISECONDS, states)
    _check(
        result,
        "SCARD_E_TIMEOUT",
        "SCARD_E_CANCELLED",
        "SCARD_E_UNKNOWN_READER",
        "SCARD_E_READER_UNAVAILABLE",
    )


def _state(reader: Reader) -> int:
    scard = _scard()
    state = scard.SCARD_STATE_PRESENT if reader.occupied else scard.SCARD_STATE_EMPTY
    return int(state) | reader.count << _COUNT_SHIFT

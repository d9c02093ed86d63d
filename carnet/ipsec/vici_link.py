"""The way to strongSwan's daemon: its VICI socket, and what can go wrong there."""

import errno
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from vici import Session
from vici.exception import CommandException, DeserializationException, SessionException
from vici.protocol import Message, Packet, Transport

from carnet.errors import DaemonGoneError, DaemonSilentError, IPsecError
from carnet.ipsec.living import lives
from carnet.ipsec.unanswered import BRIEF_SECONDS, unanswered

PROGRAMS = ("charon", "charon-systemd")
"""What the daemon's process is called."""

DEFAULT_SOCKETS = (Path("/run/charon.vici"), Path("/var/run/charon.vici"))

ANSWER_TIME_LIMIT = 10.0
"""Seconds in which the daemon answers what it can answer from its memory."""
_TURN_SECONDS = 0.02
"""Between two attempts to be among those whom the daemon keeps waiting."""
_SILENT = (TimeoutError, BlockingIOError)
"""How it shows that the daemon is there, and nothing comes of it."""


def find_socket() -> Path:
    """Return the daemon's socket, or where it would be."""
    return next((path for path in DEFAULT_SOCKETS if path.exists()), DEFAULT_SOCKETS[0])


def accepts(path: Path) -> bool:
    """Tell whether something listens at a socket, and this user may speak to it."""
    seconds = BRIEF_SECONDS if unanswered.lately(path) else ANSWER_TIME_LIMIT
    try:
        _connect(path, seconds).close()
    except _SILENT:
        return True
    except OSError:
        return False
    return True


@contextmanager
def open_session(path: Path, seconds: float = ANSWER_TIME_LIMIT) -> Iterator[Session]:
    """Yield a VICI session that waits at most so many seconds for an answer.

    Less where the daemon was silent just before: see carnet.ipsec.unanswered.

    Raises IPsecError if the daemon cannot be reached, or refuses a command.
    """
    with _errors_as_sentences(path):
        unanswered.ask_first(path, partial(_ask, path))
        with _session(path, seconds) as session:
            yield session


@contextmanager
def _session(path: Path, seconds: float) -> Iterator[Session]:
    with _connect(path, seconds) as connection:
        session = Session(connection)
        session.transport = _Transport(connection, path)
        yield session


def _ask(path: Path, seconds: float) -> None:
    """Ask what costs the daemon least."""
    with _session(path, seconds) as session:
        session.version()


class _Transport(Transport):  # type: ignore[misc]  # vici has no types
    """Closed by an interrupt: the library would read on, at whatever comes, without a time limit.

    So it is where the time is up: the library would clean up, and wait for as long again. What
    it cleans up so fails at once; the daemon drops what it had begun for this session.
    """

    def __init__(self, connection: socket.socket, path: Path) -> None:
        super().__init__(connection)
        self._path = path

    def send(self, packet: bytes) -> None:
        """Send a packet."""
        with self._closed_where_cut_off():
            super().send(packet)

    def receive(self, *timeout: Any) -> bytes:
        """Return the next packet; see Transport."""
        with self._closed_where_cut_off():
            return bytes(super().receive(*timeout))

    @contextmanager
    def _closed_where_cut_off(self) -> Iterator[None]:
        try:
            with unanswered.noted(self._path, TimeoutError):
                yield
        except (KeyboardInterrupt, TimeoutError):
            self.socket.close()
            raise


class Events:
    """Events of the named types, from the moment this is made.

    A session of its own: VICI mixes events with answers on one session. With no
    time limit it waits for an event as long as there is a daemon.

    Raises IPsecError if the daemon cannot be reached.
    """

    def __init__(self, path: Path, kinds: Sequence[str], seconds: float | None = None) -> None:
        with _errors_as_sentences(path):
            unanswered.ask_first(path, partial(_ask, path))
            self._socket = _connect(path, ANSWER_TIME_LIMIT)
            self._transport = Transport(self._socket)
            try:
                with unanswered.noted(path, TimeoutError):
                    for kind in kinds:
                        self._register(kind)
            except BaseException:
                self._socket.close()
                raise
        self._socket.settimeout(seconds)

    def _register(self, kind: str) -> None:
        """Ask for one type of events; some of an earlier type may come before the answer."""
        self._transport.send(Packet.register_event(kind))
        answer = Packet.parse(self._transport.receive())
        while answer.response_type == Packet.EVENT:
            answer = Packet.parse(self._transport.receive())
        if answer.response_type != Packet.EVENT_CONFIRM:
            raise SessionException(f"no events {kind}")

    def next(self) -> dict[str, Any]:
        """Return the next event's message; raises OSError as next_of() does."""
        return self.next_of()[1]

    def next_of(self) -> tuple[str, dict[str, Any]]:
        """Return the next event's type and its message.

        Raises OSError when the daemon goes away, stop() is called or the time is up.
        """
        packet = Packet.parse(self._transport.receive())
        return packet.event_type.decode(), text(Message.deserialize(packet.payload))

    def stop(self) -> None:
        """Wake whoever waits in next(), from another thread."""
        with suppress(OSError):  # the daemon was faster
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, from the thread that uses it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def text(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a VICI message with its octet strings as text."""
    return {key: _text_value(value) for key, value in message.items()}


def _text_value(value: Any) -> Any:
    # Most of a message are octet strings.
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [_text_value(item) for item in value]
    return text(value)


def _connect(path: Path, seconds: float) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):  # as on Windows
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(seconds)
    # The daemon keeps few callers waiting; one more is turned away, whatever his time limit.
    in_turn = Retrying(
        retry=retry_if_exception_type(BlockingIOError),
        stop=stop_after_delay(seconds),
        wait=wait_fixed(_TURN_SECONDS),
        reraise=True,
    )
    try:
        with unanswered.noted(path, *_SILENT):
            in_turn(connection.connect, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _interrupts_heard() -> Iterator[None]:
    """Raise an interrupt that the library has put an error of its own over.

    It cleans up after one, which fails. Whoever else cleans up after an interrupt hears of
    errors.
    """
    outside = sys.exception()
    try:
        yield
    except Exception as error:
        before = error.__context__
        while before is not None and before is not outside:
            if isinstance(before, KeyboardInterrupt):
                raise KeyboardInterrupt(*before.args) from error
            before = before.__context__
        raise


@contextmanager
def _errors_as_sentences(path: Path) -> Iterator[None]:
    try:
        with _interrupts_heard():
            yield
    except PermissionError as error:
        raise IPsecError(
            f"The strongSwan daemon at {path} may be driven by root only; run this as root."
        ) from error
    except _SILENT as error:
        raise DaemonSilentError(
            f"The strongSwan daemon does not answer at {path}; if it stays so, restart it"
            " (systemctl restart strongswan) and try again."
        ) from error
    except OSError as error:
        if lives(path, PROGRAMS):
            raise DaemonSilentError(
                f"The strongSwan daemon runs, and does not answer at {path}; restart it"
                " (systemctl restart strongswan) and try again."
            ) from error
        raise DaemonGoneError(
            f"The strongSwan daemon does not answer at {path};"
            " start it (systemctl start strongswan) and try again."
        ) from error
    except CommandException as error:
        reason = str(error).removeprefix("Command failed: ")
        raise IPsecError(f"The strongSwan daemon refuses ({reason}); see its log.") from error
    except (SessionException, DeserializationException) as error:
        raise IPsecError(
            f"What answers at {path} does not speak VICI as strongSwan does;"
            " check which daemon it is."
        ) from error

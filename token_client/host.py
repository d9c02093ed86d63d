"""Sending a sealed request to Host: the same bytes, until an answer comes (steps 1 and 8)."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from itertools import cycle
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_exponential_jitter,
)

from carnet.exchange.client import AnswerArrived, NoAnswer, UnsealedNo
from carnet.exchange.machine import Event
from carnet.wire.messages import MAX_RESPONSE
from token_client import whereabouts
from token_client.record import Known

ATTEMPT_SECONDS = 20
"""Host itself asks Target for up to 5, and the last time may take 10."""
LONGEST_WAIT_SECONDS = 10
"""For which a 429 can have the Client wait, whatever it says: anybody on the way can forge one."""
LOOK_SECONDS = 5
"""For a look whether something answers."""
WANTS_LOGIN = "network-wants-login"
"""What answers in the Host's place is the network, which lets nobody through before a login."""
_UNREACHABLE = "host-unreachable"
_BUSY = "host-busy"
_MAX_DIGITS = 4
_MOST_OF_ADDRESS = 64
"""Bytes; an address has 45 at most."""
_CLOCK_TOLERANCE_SECONDS = 60
_REASONS = frozenset({"target-unreachable", "target-not-ready", "host-not-ready"})


_PAUSE = wait_exponential_jitter(multiplier=0.2, max=3)


class NotYetError(Exception):
    """No answer so far; `code` says why, in a word, `after` for how many seconds to wait."""

    def __init__(self, code: str, detail: str, after: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.after = after


class Delivery(msgspec.Struct, frozen=True):
    """What came back from one sending."""

    event: Event
    timing: str
    """What Host says its steps took (Server-Timing); a stranger may have written it."""
    clock_behind: int = 0
    """Seconds by which this machine's clock is behind; a stranger may have said so, too."""


class HostSender:
    """Sends to one Host after the other of the cover until one answers or time is up."""

    def __init__(
        self,
        hosts: tuple[str, ...],
        patience: float,
        tell: Callable[[NotYetError], None],
        known: Known = (),
    ) -> None:
        """Take `known` for where they are, where their names lead nowhere."""
        self._hosts = cycle(hosts)
        self._known = known
        self._deadline = time.monotonic() + patience
        self._tell = tell
        self._false = ""

    def distrust(self, detail: str) -> None:
        """Remember that the last answer was not the Host's; the next sending waits first."""
        self._false = detail

    def send(self, sealed: bytes) -> Delivery:
        """Send these bytes until an answer comes; a NoAnswer event when time is up."""
        attempts = Retrying(
            stop=self._is_over,
            wait=self._wait,
            retry=retry_if_exception_type(NotYetError),
            before_sleep=self._before_sleep,
            reraise=True,
        )
        try:
            return attempts(self._attempt, sealed)
        except NotYetError as error:
            return Delivery(NoAnswer(error.code, error.detail), "")

    def _is_over(self, _: RetryCallState) -> bool:
        return time.monotonic() >= self._deadline

    def _wait(self, state: RetryCallState) -> float:
        """Return seconds until the next attempt; the last one is when time is up.

        What a busy Host asks for is made a little longer by chance, lest all who wait
        come again together.
        """
        pause = _PAUSE(state)
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, NotYetError) and error.after:
            pause = min(error.after, LONGEST_WAIT_SECONDS) + random.random()  # noqa: S311  no secret
        return max(0.0, min(pause, self._deadline - time.monotonic()))

    def _before_sleep(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, NotYetError):
            self._tell(error)

    def _attempt(self, sealed: bytes) -> Delivery:
        if self._false:
            detail, self._false = self._false, ""
            raise NotYetError(_UNREACHABLE, f"an answer that is not the Host's ({detail})")
        host = next(self._hosts)
        try:
            return _post(host, sealed, self._known)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NotYetError(_UNREACHABLE, f"{host}: {_short(error)}") from error


class HostSighting(msgspec.Struct, frozen=True):
    """What a look at a Host's address found; anybody on the way may have answered."""

    host: str
    failure: str | None = None
    wants_login: bool = False
    """What answers is the network, which wants a login first."""

    @property
    def answers(self) -> bool:
        """Whether something answers there as a Host does."""
        return self.failure is None


def look_at_host(host: str, known: Known = ()) -> HostSighting:
    """Ask, at a Host's address, what a Host answers anybody: where it sees him (PROTOCOL 2.6).

    `known` is where it was found to be, for where its name leads nowhere.
    """
    try:
        with connected(host, LOOK_SECONDS, known) as connection:
            connection.request("GET", urlsplit(host).path.rstrip("/") + "/v1/address")
            response = connection.getresponse()
            body = response.read(_MOST_OF_ADDRESS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return HostSighting(host, failure=_short(error))
    if _is_for_login(response):
        return HostSighting(host, failure=_status(response), wants_login=True)
    if _is_a_hosts(response, body):
        return HostSighting(host)
    return HostSighting(host, failure=f"{_status(response)}, and no Host answers that")


def _is_a_hosts(response: http.client.HTTPResponse, body: bytes) -> bool:
    """Tell whether a Host answers so when it is asked for the address; nobody vouches for it."""
    if response.status == HTTPStatus.OK:
        with suppress(ValueError):
            return bool(ip_address(body.decode("ascii").strip()))
    if response.status == HTTPStatus.FORBIDDEN:
        return not body  # it has too many connections
    return response.status == HTTPStatus.TOO_MANY_REQUESTS


def _is_for_login(response: http.client.HTTPResponse) -> bool:
    """Tell whether it is what networks answer in another's place before a login.

    No Host sends elsewhere, or shows a page.
    """
    redirects = HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST
    shows = response.getheader("Content-Type", "").lower().startswith("text/html")
    return (
        redirects
        or response.status == HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED
        or (shows and response.status == HTTPStatus.OK)
    )


def _status(response: http.client.HTTPResponse) -> str:
    return f"HTTP {response.status}"


def _post(host: str, sealed: bytes, known: Known) -> Delivery:
    with connected(host, ATTEMPT_SECONDS, known) as connection:
        path = urlsplit(host).path.rstrip("/") + "/v1/requests"
        connection.request("POST", path, sealed, {"Content-Type": "application/cbor"})
        response = connection.getresponse()
        body = response.read(MAX_RESPONSE + 1)
    return _interpret(host, response, body)


@contextmanager
def connected(host: str, seconds: float, known: Known = ()) -> Iterator[http.client.HTTPConnection]:
    """Yield a connection to a Host, which is ended after so many seconds.

    Where its name leads nowhere, that is to one of the addresses that are known of it.
    """
    url = urlsplit(host)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=seconds)
    with _Attempt(connection, seconds) as attempt:
        _connect(connection, known)
        attempt.go_on_with(connection.sock)
        yield connection


def _connect(connection: http.client.HTTPConnection, known: Known) -> None:
    """Connect; it is the Host's name for which TLS wants a certificate, whatever its address."""
    if not any(name == connection.host for name, _ in known):
        connection.connect()
        return
    connection.sock = _socket_to(whereabouts.numbers(connection.host, known), connection)
    if isinstance(connection, http.client.HTTPSConnection):
        import ssl  # noqa: PLC0415  see carnet.entry

        context = ssl.create_default_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=connection.host)


def _socket_to(numbers: tuple[str, ...], connection: http.client.HTTPConnection) -> socket.socket:
    """Return one that is connected to the first of these addresses that takes it."""
    *others, last = numbers
    for number in others:
        with suppress(OSError):
            return socket.create_connection((number, connection.port), connection.timeout)
    return socket.create_connection((last, connection.port), connection.timeout)


class _Attempt:
    """Ends an attempt from outside: who answers a byte at a time would hold it for ever.

    Raises TimeoutError at the end of an attempt that it ended, whatever came of that.
    """

    def __init__(self, connection: http.client.HTTPConnection, seconds: float) -> None:
        self._connection = connection
        self._over = False
        self._timer = threading.Timer(seconds, self._hang_up)
        self._timer.daemon = True
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def go_on_with(self, sock: socket.socket | None) -> None:
        """Keep the socket, which a response that is to be the last takes from the connection.

        Raises TimeoutError if the time was up while it was being connected.
        """
        self._sock = sock
        if self._over:
            raise TimeoutError

    def _hang_up(self) -> None:
        self._over = True
        for sock in (self._connection.sock, self._sock):
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._connection.close()
        if self._over:
            raise TimeoutError from error


def _interpret(host: str, response: http.client.HTTPResponse, body: bytes) -> Delivery:
    if _is_for_login(response):
        raise NotYetError(WANTS_LOGIN, f"{host}: {_status(response)}")
    if response.status == HTTPStatus.OK:
        behind = _clock_behind(response.getheader("Date", ""))
        return Delivery(AnswerArrived(body), response.getheader("Server-Timing", ""), behind)
    if response.status == HTTPStatus.FORBIDDEN:
        return Delivery(UnsealedNo(), "")
    if response.status == HTTPStatus.TOO_MANY_REQUESTS:
        after = _seconds(response.getheader("Retry-After", ""))
        raise NotYetError(_BUSY, f"{host} has too much to do", after)
    told = response.getheader("Carnet-Reason", "")
    code = told if told in _REASONS else _UNREACHABLE
    words = told.replace("-", " ") if told in _REASONS else _status(response)
    raise NotYetError(code, f"{host}: {words}")


def _clock_behind(date: str) -> int:
    """Return by how many seconds an HTTP date (RFC 9110 section 5.6.7) is ahead of this clock.

    0 where it is none, or so near that the way here may explain it.
    """
    try:
        told = parsedate_to_datetime(date)
        ahead = int(told.timestamp() - time.time()) if told.tzinfo else 0
    except (ValueError, OverflowError):
        return 0
    return ahead if abs(ahead) > _CLOCK_TOLERANCE_SECONDS else 0


def _seconds(text: str) -> int:
    """Return what a Retry-After says, 1 where it says nothing of use."""
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS:
        return max(1, int(text))
    return 1


def _short(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it hangs up"
    if isinstance(error, http.client.HTTPException | ValueError):
        return "what answers there is no Host"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__

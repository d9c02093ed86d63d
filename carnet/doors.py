"""Connections: how many there may be, of whom, and for how long somebody may be silent.

Whoever only connects costs a file descriptor and some memory. So there is a limit for
each address and one for all; where it is reached, the connection that has been silent
for longest gives way to the new one. Someone who sends his request at once therefore
gets in, however many others hold the door open.
"""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import structlog
from aiohttp import web

log = structlog.get_logger()

_BACKLOG = 512
_OUT_OF_DESCRIPTORS_SECONDS = 1
_IPV6_PREFIX = 64
_RECEIVE_BUFFER = 8 * 1024
"""Bytes; what a read of one connection can bring at once is of this order."""

_PARSER = {
    "max_line_size": 1024,
    "max_field_size": 512,
    "max_headers": 20,
    "read_bufsize": 8 * 1024,
    "auto_decompress": False,  # a few bytes of gzip can stand for as many as one likes
    "lingering_time": 2.0,
    "access_log": None,
}


def network_of(address: str) -> str:
    """Return whom an address counts for: itself, and of IPv6 its network of 64 bits."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ip_network((ip, _IPV6_PREFIX), strict=False))
    return str(ip)


@dataclass(frozen=True, kw_only=True)
class DoorRules:
    """What a service allows those who connect."""

    refusal: Callable[[], web.StreamResponse]
    """The answer to what is no HTTP request, and to what failed on the way to its answer."""
    connections: int
    """At most so many in all."""
    per_address: int
    silent_seconds: float = 10
    """Within which a TLS handshake must be done."""
    idle_seconds: float
    """After which a connection is closed on which no whole header of a request came."""
    life_seconds: float | None = None
    """After which a connection is closed, whatever happens on it."""


class Connection(web.RequestHandler):
    """One connection, which answers in our words also where the library would in its own."""

    def __init__(self, server: web.Server, rules: DoorRules, gone: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, keepalive_timeout=rules.idle_seconds, **_PARSER)  # type: ignore[arg-type]
        self.heard = False
        """Whether a whole request came, or the peer showed its certificate."""
        self._rules = rules
        self._gone = gone
        self._spoken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; by now a TLS handshake is done."""
        super().connection_made(transport)
        self.heard = self.ssl_context is not None

    def data_received(self, data: bytes) -> None:
        """Take in what came."""
        self._spoken = True
        super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for it
        """Go on writing to a peer who says that he has said all.

        One who said nothing wants no answer. Over TLS there is no such half of a connection.
        """
        super().eof_received()
        return self._spoken and self.ssl_context is None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another."""
        super().connection_lost(exc)
        self._gone()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  the library's words
    ) -> web.StreamResponse:
        """Answer what is no HTTP, and what raised where nothing should."""
        if status == web.HTTPBadRequest.status_code:
            log.info("rejected", reason=f"not HTTP: {type(exc).__name__}")
            if exc is not None:
                # Its traceback would hold on to the bytes that were read, and itself.
                exc.__traceback__ = None
        else:
            log.error("request-failed", status=status, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        return self._rules.refusal()


class _Visitor:
    """A socket that was accepted, from then until it is closed."""

    def __init__(self, network: str, accepted: socket.socket) -> None:
        self.network = network
        self.accepted = accepted
        self.welcomed = False
        """Whether asyncio has the socket by now."""
        self.handshake: asyncio.Task[None] | None = None
        self.connection: Connection | None = None
        self.end: asyncio.TimerHandle | None = None

    @property
    def silent(self) -> bool:
        return self.connection is None or not self.connection.heard

    def throw_out(self) -> None:
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.abort()
        elif self.handshake is not None:
            self.handshake.cancel()
        if not self.welcomed:
            self.accepted.close()


class Door:
    """Accepts connections for an aiohttp server, as far as the rules allow."""

    def __init__(
        self, server: web.Server, rules: DoorRules, context: ssl.SSLContext | None = None
    ) -> None:
        self._server = server
        self._rules = rules
        self._context = context
        self._visitors: list[_Visitor] = []
        self._networks: Counter[str] = Counter()

    async def accept(self, listening: socket.socket) -> None:
        """Let in whoever comes, for ever: what fails with one keeps no other out."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("not-accepted", reason=str(error))
                await asyncio.sleep(_OUT_OF_DESCRIPTORS_SECONDS)
                continue
            try:
                self._let_in(accepted, peer)
            except Exception:
                log.exception("not-let-in")
                accepted.close()

    def close(self) -> None:
        """End the handshakes that are under way; what goes on then is the server's to end."""
        for visitor in self._visitors:
            if visitor.connection is None:
                visitor.throw_out()

    def _let_in(self, accepted: socket.socket, peer: Any) -> None:
        network = network_of(peer[0])
        if not self._make_room(network):
            accepted.close()
            return
        visitor = _Visitor(network, accepted)
        self._visitors.append(visitor)
        self._networks[network] += 1
        visitor.handshake = asyncio.create_task(self._welcome(visitor))

    def _make_room(self, network: str) -> bool:
        """Tell whether one more may come in, after a silent one was thrown out if need be."""
        if self._networks[network] >= self._rules.per_address:
            return self._throw_out(v for v in self._visitors if v.network == network)
        if len(self._visitors) >= self._rules.connections:
            return self._throw_out(self._visitors)
        return True

    def _throw_out(self, candidates: Iterable[_Visitor]) -> bool:
        """Throw the first silent one out, which came before the others."""
        for visitor in candidates:
            if visitor.silent:
                visitor.throw_out()
                self._forget(visitor)
                return True
        return False

    async def _welcome(self, visitor: _Visitor) -> None:
        """Do the TLS handshake, where there is one, and hand the connection over."""
        visitor.welcomed = True

        def protocol() -> Connection:
            return Connection(self._server, self._rules, lambda: self._forget(visitor))

        loop = asyncio.get_running_loop()
        try:
            _, visitor.connection = await loop.connect_accepted_socket(
                protocol,
                visitor.accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._rules.silent_seconds if self._context else None,
            )
        except (OSError, asyncio.CancelledError):
            visitor.accepted.close()
            self._forget(visitor)
            return
        if self._rules.life_seconds is not None and visitor in self._visitors:
            visitor.end = loop.call_later(self._rules.life_seconds, visitor.throw_out)

    def _forget(self, visitor: _Visitor) -> None:
        if visitor.end is not None:
            visitor.end.cancel()
        if visitor in self._visitors:
            self._visitors.remove(visitor)
            self._networks[visitor.network] -= 1
            if not self._networks[visitor.network]:
                del self._networks[visitor.network]


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens; raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, port), family=family, backlog=_BACKLOG)
    # Those that are accepted inherit it.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    listening.setblocking(False)
    return listening

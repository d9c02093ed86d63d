"""The officer's station at a Host's interface: sending batches, having pairs revoked."""

import asyncio
import shlex
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import click
import msgspec

from carnet.errors import NothingRevokedError, RefusedError, UnreachableError, UsageError
from carnet.files import open_regular
from carnet.interface import (
    BATCHES,
    REVOCATIONS,
    Received,
    Refused,
    Revocation,
    Revoked,
    interface_name,
    officer_context,
)
from carnet.link import read_at_most
from carnet.wire.fields import Name
from provisioning.checks import checked
from provisioning.officer import CERTIFICATE_FILE, KEY_FILE, check_created, load_officer
from provisioning.options import Station

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

_MAX_ANSWER = 64 * 1024
_WAIT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=1800)
"""Seconds; a large batch is taken in before it is answered."""
_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_NOT_NOW = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE)


def host_option(*, required: bool) -> Callable[[C], C]:
    """Add `--host NAME URL`: which Host, and where its interface is."""
    return click.option(
        "--host",
        nargs=2,
        metavar="NAME URL",
        required=required,
        help="The Host and its interface, such as: office https://host.example:8472.",
    )


@dataclass(frozen=True)
class HostInterface:
    """One Host's interface, and the officer's certificate, with which she is let in."""

    name: str
    url: str
    context: ssl.SSLContext

    @classmethod
    def of(cls, host: tuple[str, str], station: Station) -> "HostInterface":
        """Open the officer's key for a Host; raises UsageError."""
        name, url = host[0], host[1].rstrip("/")
        checked(name, Name, f"{name!r} is no Host's name; it is what is behind the @ of users.")
        if not url.startswith("https://"):
            raise UsageError(f"{url} is no https:// address; give the one of the interface.")
        check_created(station.directory)
        passphrase = station.read_passphrase()
        load_officer(station.directory, passphrase)
        certificate, key = station.directory / CERTIFICATE_FILE, station.directory / KEY_FILE
        return cls(name, url, officer_context(certificate, key, passphrase))

    def send(self, batch: Path) -> Received:
        """Send a batch; raises RefusedError with the reason, UnreachableError, UsageError."""
        try:
            open_regular(batch).close()
            with batch.open("rb") as file:
                return asyncio.run(self._post(BATCHES, file, "application/cbor", Received))
        except OSError as error:
            raise UsageError(f"Cannot read {batch}: {error.strerror}; correct the path.") from error

    def revoke(self, revocation: Revocation) -> Revoked:
        """Have pairs made invalid; raises NothingRevokedError, RefusedError, UnreachableError."""
        body = msgspec.json.encode(revocation)
        return asyncio.run(self._post(REVOCATIONS, body, "application/json", Revoked))

    async def _post(self, path: str, body: Any, content_type: str, type_: type[T]) -> T:
        try:
            async with (
                aiohttp.ClientSession(timeout=_WAIT) as session,
                session.post(
                    self.url + path,
                    data=body,
                    headers={"Content-Type": content_type},
                    ssl=self.context,
                    server_hostname=interface_name(self.name),
                    allow_redirects=False,
                ) as response,
            ):
                answer = await read_at_most(response.content, _MAX_ANSWER)
                return self._read(response.status, answer, type_)
        except (TimeoutError, aiohttp.ClientError, ssl.SSLError, ConnectionError) as error:
            raise UnreachableError(
                f"Host {self.name} does not answer at {self.url} "
                f"({_reason(error)}); it may be away, or know another officer: "
                f"look, and try again."
            ) from error

    def _read(self, status: int, answer: bytes, type_: type[T]) -> T:
        try:
            if status == HTTPStatus.OK:
                return msgspec.json.decode(answer, type=type_)
            if status in _NOT_NOW:
                reason = msgspec.json.decode(answer, type=Refused).reason
                raise UnreachableError(f"Host {self.name} cannot just now: {reason}")
            if status == HTTPStatus.NOT_FOUND:
                reason = msgspec.json.decode(answer, type=Refused).reason
                raise NothingRevokedError(f"Host {self.name} was told, and knows none: {reason}")
            if status in _REFUSALS:
                reason = msgspec.json.decode(answer, type=Refused).reason
                raise RefusedError(f"Host {self.name} refuses: {reason}")
        except msgspec.DecodeError:
            pass
        raise RefusedError(
            f"Host {self.name} answered with HTTP {status}; look at its log, and whether "
            f"{CERTIFICATE_FILE} is what it has registered."
        )


def _reason(error: Exception) -> str:
    """Return why nothing was heard, without aiohttp's own words around it."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", error)
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def command_to_run(host: tuple[str, str], key_ids: list[bytes], why: str, *, lost: bool) -> str:
    """Return the command by which a Host is told later of pairs that are burned."""
    argv = ["carnet-provision", "revoke", "--host", *host, "--reason", why]
    argv += ["--lost"] if lost else []
    return shlex.join([*argv, *(part for each in key_ids for part in ("--key", each.hex()))])

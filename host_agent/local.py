"""What the commands of the Host work on: its database, its HSM token, and the PIN."""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization

from carnet.secret_sources import PIN_VARIABLE, read_secret
from carnet.token.frozen import unless_frozen
from carnet.token.session import TokenSession, open_session
from host_agent.config import HostConfig
from host_agent.hsm_login import find_hsm, told_to_an_operator
from host_agent.keydb import KeyDatabase

PIN = "the PIN of the HSM token"


accept_option = click.option(
    "--accept-unfit-hsm",
    "accept_unfit",
    is_flag=True,
    help="Use an HSM that lets private keys out.",
)


def read_pin(fd: int | None, file: Path | None) -> str:
    """Return the PIN; raises UsageError where there is no source of it."""
    return read_secret(PIN, option="pin", fd=fd, file=file, variable=PIN_VARIABLE)


def open_database(config: HostConfig, *, make: bool = False) -> AbstractContextManager[KeyDatabase]:
    """Open the Key Database; raises UsageError, also where there is none, unless `make` says so.

    An empty one, made where the true one was moved away, would say that there is no pair to list
    or to revoke.
    """
    return KeyDatabase.opened(config.key_database, make=make)


@contextmanager
def hsm_session(config: HostConfig, pin: str) -> Iterator[TokenSession]:
    """Log in to the HSM token; raises TokenError."""
    with (
        unless_frozen(),
        told_to_an_operator(),
        open_session(find_hsm(config.token), pin, writable=True) as session,
    ):
        yield session


def print_public_key(public_key: bytes, purpose: str) -> None:
    """Print a SubjectPublicKeyInfo as PEM, and its fingerprint beside it."""
    pem = serialization.load_der_public_key(public_key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    click.echo(pem.decode(), nl=False)
    fingerprint = hashlib.sha256(public_key).hexdigest()
    click.echo(f"SHA-256 fingerprint, {purpose}: {fingerprint}", err=True)

"""The officer's interface of a Host: what her station and the Host say to each other.

HTTP over mutually authenticated TLS 1.3 (docs/PROTOCOL.md, section 8). She shows the
certificate that the Host registered, and no other is let in; the Host shows one that she
issued, for a name that no Target has.
"""

import ssl
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from carnet.wire.fields import Message, Text, UserId

BATCHES, REVOCATIONS, PAIRS = "/v1/batches", "/v1/revocations", "/v1/pairs"
MAX_REVOCATION = 512 * 1024
"""Bytes: a burn of 9,999 pairs fits."""
_DOMAIN = ".host.carnet.invalid"
"""RFC 2606: nothing else is ever called that."""

HexKeyId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]


class Revocation(Message, frozen=True, kw_only=True):
    """Which pairs shall be invalid: by key, by user or by token, one of the three."""

    key_ids: Annotated[tuple[HexKeyId, ...], Meta(min_length=1, max_length=10_000)] | None = None
    user_id: UserId | None = None
    token_serial: Annotated[Text, Meta(min_length=1)] | None = None
    why: Annotated[Text, Meta(min_length=1)]
    """For the accounts."""
    lost: bool = False
    """Whether they were lost, and not revoked."""

    @property
    def names(self) -> dict[str, object]:
        """Return which is named, by the Key Database's column; empty unless exactly one is."""
        named: dict[str, object] = {
            "key_id": self.key_ids and [bytes.fromhex(each) for each in self.key_ids],
            "user_id": self.user_id,
            "token_serial": self.token_serial,
        }
        given = {column: value for column, value in named.items() if value is not None}
        return given if len(given) == 1 else {}


class Revoked(Message, frozen=True, kw_only=True):
    """What came of it; all are 0 where it was done before; where nothing is known of it, 404."""

    revoked: int
    importing: int
    """How many pairs these are of imports that are under way: none of them becomes valid."""
    tunnels: int


class Received(Message, frozen=True, kw_only=True):
    """What came of a batch."""

    user_id: str
    pairs: int
    new: int


class Refused(Message, frozen=True, kw_only=True):
    """Why it was not done, for the officer to read."""

    reason: str


def interface_name(host: str) -> str:
    """Return the name in a Host's certificate on this interface."""
    return host + _DOMAIN


def is_interface_name(name: str) -> bool:
    """Tell whether no Target may be called that."""
    return name.endswith(_DOMAIN)


def officer_context(certificate: Path, key: Path, passphrase: str) -> ssl.SSLContext:
    """Return the officer's side: her certificate is also the authority of the Host's.

    Raises OSError, ssl.SSLError where they cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=certificate)
    context.load_cert_chain(certificate, key, passphrase)
    return context


def decode_revocation(body: bytes) -> Revocation:
    """Return it; raises ValueError for what is none."""
    try:
        revocation = msgspec.json.decode(body, type=Revocation)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if not revocation.names:
        raise ValueError("it names not one of key_ids, user_id and token_serial")
    return revocation

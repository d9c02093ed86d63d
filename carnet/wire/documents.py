"""Signed documents: cover, batch, the head of the accounts, the end of a tunnel.

All are COSE_Sign1 by a key on P-256, each bound to its own kind, so that one can never
be read as another. Cover and batch are the security officer's word, a head of the
accounts is the agent's whose accounts they are, the end of a tunnel is Target's.
"""

from typing import Annotated, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta

from carnet.wire import cbor, cose
from carnet.wire.fields import (
    Custody,
    KeyId,
    Message,
    Name,
    PublicKey,
    RequestId,
    SuiteNumber,
    Text,
    Time,
    Token,
    UserId,
)
from carnet.wire.suites import P256

MAX_COVER = 16 * 1024
MAX_BATCH = 64 * 1024 * 1024
MAX_PAIRS = 100_000
"""Of one batch."""
MAX_HEAD = 1024
MAX_SIGNED_ENDING = 512
DOCUMENT_VERSION = 1

_PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
HOST_AND_PORT = rf"([A-Za-z0-9._-]{{1,253}}|\[[0-9A-Fa-f:.]+\])(:({_PORT}))?"
"""A pattern."""
_URL = rf"\Ahttps?://{HOST_AND_PORT}(/[!-~]*)?\Z"
Version = Annotated[int, Meta(ge=DOCUMENT_VERSION, le=DOCUMENT_VERSION)]
Url = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=_URL,
        description="http://… or https://… with a host's name or address",
    ),
]
D = TypeVar("D", bound=Message)


class Cover(Message, frozen=True, kw_only=True):
    """The booklet's cover: all that a strange machine needs to know."""

    version: Version
    user_id: UserId
    token_serial: Text
    """A cover copied to another token is no cover."""
    hosts: Annotated[tuple[Url, ...], Meta(min_length=1, max_length=8)]
    targets: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=32)]
    """The first is the one meant when the user names none."""
    custody: Custody
    suite: SuiteNumber
    host_keys: Annotated[tuple[PublicKey, ...], Meta(max_length=8)]
    """In split custody, the Host's long-term public keys."""
    issued_at: Time
    not_after: Time | None


class BatchPair(Message, frozen=True, kw_only=True):
    """One key pair of a batch."""

    label: Text
    public_key: PublicKey
    wrapped: Annotated[bytes, Meta(max_length=4096)] | None
    """In paired custody, the private key under the key that only the two tokens know."""


class BatchHead(Message, frozen=True, kw_only=True):
    """What a batch says of all its pairs."""

    version: Version
    batch_id: KeyId
    host_transport_key: PublicKey
    """For which Host this batch was made; no other can unwrap it."""
    ephemeral_key: PublicKey | None
    """The traveller's token's half of the agreement on the wrapping key."""
    user_id: UserId
    token_serial: Text
    custody: Custody
    suite: SuiteNumber
    minted_at: Time
    not_after: Time | None


class Batch(BatchHead, frozen=True, kw_only=True):
    """What minting produces for the Host."""

    pairs: Annotated[tuple[BatchPair, ...], Meta(min_length=1, max_length=MAX_PAIRS)]


class AccountsHead(Message, frozen=True, kw_only=True):
    """Up to which record, and to which digest, an agent's accounts were chained."""

    version: Version
    agent: Name
    """The Host or Target whose accounts they are."""
    number: Annotated[int, Meta(ge=1, le=2**53)]
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """Of that record; it depends on all before it."""
    signed_at: Time


class Ending(Message, frozen=True, kw_only=True):
    """That a tunnel ended, and why: Target's word to the traveller."""

    version: Version
    request_id: RequestId
    reason: Token
    ended_at: Time


Certificate = Annotated[bytes, Meta(max_length=3072)]
"""X.509 (RFC 5280), DER."""


class ProvedEnding(Message, frozen=True, kw_only=True):
    """An ending, with what leads from Target's signature to the officer."""

    signed: Annotated[bytes, Meta(max_length=MAX_SIGNED_ENDING)]
    certificate: Certificate
    """Target's, of the Host-Target link."""
    authority: Certificate
    """The officer's."""


_KINDS: dict[type[Message], tuple[str, int]] = {
    Cover: ("cover", MAX_COVER),
    Batch: ("batch", MAX_BATCH),
    AccountsHead: ("accounts-head", MAX_HEAD),
    Ending: ("ending", MAX_SIGNED_ENDING),
}


def sign_document(document: Message, sign: cose.Sign) -> bytes:
    """Return the document, signed."""
    return cose.sign1(cbor.pack(document), purpose_of(type(document)), P256, sign)


def verify_document(signed: bytes, type_: type[D], key: ec.EllipticCurvePublicKey) -> D:
    """Return a document that this key signed; WireError where it did not."""
    limit = _KINDS[type_][1]
    payload = cose.verify1(signed, purpose_of(type_), P256, key, limit)
    return cbor.unpack(payload, type_, limit)


def read_unverified(signed: bytes, type_: type[D]) -> D:
    """Return what a document says without proof, to be shown and never relied upon.

    Raises WireError for what is no such document.
    """
    return cbor.unpack(cose.payload_of(signed, _KINDS[type_][1]), type_, _KINDS[type_][1])


def purpose_of(type_: type[Message]) -> bytes:
    """Return what the signature of such a document is bound to, beside its payload."""
    return cbor.encode(["carnet", DOCUMENT_VERSION, _KINDS[type_][0]])

"""The sealed message: `[version, suite, key_id, sealed]`.

Inside the seal is a COSE_Sign1. Seal and signature are both bound to the same
`info`: direction, suite, key_id and, in a response, the digest of the request it
answers. Both ends hold the same pair, so without that a message could be turned
round, moved to another key or given as the answer to another request.
"""

from enum import StrEnum
from typing import cast

import msgspec
from cryptography.hazmat.primitives import hashes

from carnet.wire import cbor, cose
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import KEY_ID_LENGTH, key_id_of, load_public_key
from carnet.wire.messages import MAX_RESPONSE, Request, Response
from carnet.wire.suite import PrivateKey
from carnet.wire.suites import AnySuite, find_suite

VERSION = 1
PAIRED = "paired"
SPLIT = "split"
"""The custodies; under the second, seal and signature are another's (carnet.wire.split)."""
_PARTS = 4


class Direction(StrEnum):
    """Which way a sealed message goes."""

    REQUEST = "request"
    RESPONSE = "response"


class Purpose(msgspec.Struct, frozen=True):
    """What one sealed message is for, and what it answers."""

    direction: Direction
    binding: bytes = b""
    """In a response, the SHA-256 of the whole sealed request."""
    custody: str = PAIRED


_REQUEST = Purpose(Direction.REQUEST)


class Envelope(msgspec.Struct, frozen=True):
    """A sealed message taken apart, nothing of it proved yet."""

    suite: AnySuite
    key_id: bytes
    sealed: bytes
    digest: bytes
    """SHA-256 of the whole sealed message; in a request, what its response is bound to."""


class SignedRequest(msgspec.Struct, frozen=True):
    """A request that was opened and verified, with the evidence of it."""

    request: Request
    evidence: bytes
    """The Client's COSE_Sign1, which Host passes on to Target as it stands."""


def parse_envelope(data: bytes, limit: int = cbor.MAX_MESSAGE) -> Envelope:
    """Take a sealed message apart; WireError for all that can be seen from outside.

    The seal is checked here too, as far as it shows without the pair, so that what cannot
    open costs no token operation.
    """
    envelope = take_apart(data, limit)
    envelope.suite.check_sealed(envelope.sealed)
    return envelope


def take_apart(data: bytes, limit: int = cbor.MAX_MESSAGE) -> Envelope:
    """Take a sealed message apart without a look at the seal; WireError where it is none."""
    parts = cbor.decode(data, limit)
    if not isinstance(parts, list) or len(parts) != _PARTS:
        raise WireError(Fault.FRAMING, "not a sealed message")
    version, number, key_id, sealed = parts
    if type(version) is not int or version != VERSION:
        raise WireError(Fault.VERSION, "a version that is not spoken here")
    if type(number) is not int:
        raise WireError(Fault.FRAMING, "the suite is no number")
    suite = find_suite(number)
    if not isinstance(key_id, bytes) or len(key_id) != KEY_ID_LENGTH:
        raise WireError(Fault.FRAMING, "not a key_id")
    if not isinstance(sealed, bytes):
        raise WireError(Fault.FRAMING, "no sealed part")
    return Envelope(suite, key_id, sealed, _sha256(data))


def seal_request(request: Request, public_key: bytes, suite: AnySuite, key: PrivateKey) -> bytes:
    """Step 1: sign a request on the token and seal it to the pair."""
    return _seal(cbor.pack(request), _REQUEST, public_key, suite, key)


def open_request(envelope: Envelope, public_key: bytes, key: PrivateKey) -> SignedRequest:
    """Step 2: open a request with the pair's private key and verify its signature.

    Raises WireError: SEAL, SIGNATURE, or what unpack() raises for the payload.
    """
    evidence = _open(envelope, _REQUEST, public_key, key)
    return verify_evidence(evidence, public_key, envelope.suite)


def verify_evidence(
    evidence: bytes, public_key: bytes, suite: AnySuite, custody: str = PAIRED
) -> SignedRequest:
    """Verify a Client's signed request, as Host does in step 2 and Target in step 4.

    A request that was signed for one custody does not verify for the other.
    """
    info = make_info(Purpose(Direction.REQUEST, custody=custody), suite, key_id_of(public_key))
    payload = cose.verify1(evidence, info, suite, load_public_key(public_key, suite))
    return SignedRequest(cbor.unpack(payload, Request), evidence)


def seal_response(
    response: Response, request: Envelope, public_key: bytes, key: PrivateKey
) -> bytes:
    """Step 7: sign a response on the HSM and seal it to the pair, bound to its request."""
    return _seal(
        cbor.pack(response),
        Purpose(Direction.RESPONSE, request.digest),
        public_key,
        request.suite,
        key,
    )


def open_response(data: bytes, request: Envelope, public_key: bytes, key: PrivateKey) -> Response:
    """Step 9: open the response to this request, and no other, on the token.

    Raises WireError; BINDING where it is under another suite or key.
    """
    envelope = parse_envelope(data, MAX_RESPONSE)
    if (envelope.suite, envelope.key_id) != (request.suite, request.key_id):
        raise WireError(Fault.BINDING, "a response under another suite or key")
    purpose = Purpose(Direction.RESPONSE, request.digest)
    signed = _open(envelope, purpose, public_key, key)
    info = make_info(purpose, request.suite, request.key_id)
    verifying_key = load_public_key(public_key, request.suite)
    payload = cose.verify1(signed, info, request.suite, verifying_key, MAX_RESPONSE)
    return cast("Response", cbor.unpack_union(payload, Response, MAX_RESPONSE))


def make_info(purpose: Purpose, suite: AnySuite, key_id: bytes) -> bytes:
    """Return what seal and signature are bound to: `info` of the seal, COSE's external_aad."""
    parts = ["carnet", VERSION, str(purpose.direction), suite.number, key_id, purpose.binding]
    return cbor.encode(parts if purpose.custody == PAIRED else [*parts, purpose.custody])


def _seal(
    payload: bytes,
    purpose: Purpose,
    public_key: bytes,
    suite: AnySuite,
    key: PrivateKey,
) -> bytes:
    key_id = key_id_of(public_key)
    info = make_info(purpose, suite, key_id)
    signed = cose.sign1(payload, info, suite, key.sign)
    sealed = suite.seal(signed, load_public_key(public_key, suite), info)
    return cbor.encode([VERSION, suite.number, key_id, sealed])


def _open(envelope: Envelope, purpose: Purpose, public_key: bytes, key: PrivateKey) -> bytes:
    info = make_info(purpose, envelope.suite, envelope.key_id)
    opening_key = load_public_key(public_key, envelope.suite)
    return envelope.suite.open_sealed(envelope.sealed, opening_key, key, info)


def _sha256(data: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize()

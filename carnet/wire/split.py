"""The sealed message in custody `split`: the Client's token signs, and does nothing else.

The pair's private key is on the traveller's token alone. The request is sealed to a
long-term key of the Host, which the cover names, and the answer to the ephemeral key of
that very request, signed by another long-term key of the Host. Both are bound to what
they are bound to in custody `paired`, and to the custody besides: so a message of one
never opens, and never verifies, as one of the other.

The Host has a couple of such keys for each curve. A pair on P-384 goes with the couple
on P-384, every other pair with the one on P-256.
"""

from collections.abc import Sequence
from typing import cast

import msgspec
from cryptography.hazmat.primitives import hashes

from carnet.wire import cbor, cose, hpke
from carnet.wire.ec_suite import EcSuite
from carnet.wire.envelope import (
    SPLIT,
    VERSION,
    Direction,
    Envelope,
    Purpose,
    SignedRequest,
    make_info,
    take_apart,
    verify_evidence,
)
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import key_id_of, load_public_key
from carnet.wire.messages import MAX_RESPONSE, Request, Response
from carnet.wire.session_key import LEAST_SEALED_LENGTH, EphemeralKey, seal_to_ephemeral
from carnet.wire.suites import P256, P384, RSA, AnySuite, name_of

_HOST_SUITES: dict[int, EcSuite] = {P256.number: P256, RSA.number: P256, P384.number: P384}
_REQUEST = Purpose(Direction.REQUEST, custody=SPLIT)


class HostKeys(msgspec.Struct, frozen=True):
    """One couple of the Host's long-term public keys; each a DER SubjectPublicKeyInfo."""

    sealing: bytes
    """Requests are sealed to it."""
    signing: bytes
    """Answers are signed by it."""


class SealedRequest(msgspec.Struct, frozen=True):
    """A request on its way, and what of it the Client can read again."""

    data: bytes
    evidence: bytes
    """The COSE_Sign1 inside the seal, which only the Host opens."""


def host_suite(suite: AnySuite) -> EcSuite:
    """Return the suite of the Host's keys that go with a pair's.

    Raises WireError (SUITE) for a suite that is of custody `paired` only: nothing is
    encrypted to an RSA pair here, so there is one suite of RSA and not one for each hash.
    """
    try:
        return _HOST_SUITES[suite.number]
    except KeyError:
        raise WireError(Fault.SUITE, "a suite that there is not in custody split") from None


def choose_host_keys(keys: Sequence[bytes], suite: AnySuite) -> HostKeys:
    """Return the couple for a pair's suite out of a cover's `host_keys`.

    They stand there in couples, the one to seal to first. Raises WireError: SUITE where
    there is none on that curve, FIELD where they are no couples.
    """
    wanted = host_suite(suite)
    for couple in couples_of(keys):
        if _is_of(couple.sealing, wanted):
            load_public_key(couple.signing, wanted)
            return couple
    raise WireError(Fault.SUITE, f"no key of the Host for suite {name_of(suite.number)}")


def couples_of(keys: Sequence[bytes]) -> tuple[HostKeys, ...]:
    """Return the couples that `host_keys` lists; WireError (FIELD) where it does not."""
    if not keys or len(keys) % 2 or len(set(keys)) != len(keys):
        raise WireError(Fault.FIELD, "the Host's keys are no couples")
    return tuple(HostKeys(*keys[n : n + 2]) for n in range(0, len(keys), 2))


def fingerprint(keys: Sequence[bytes]) -> str:
    """Return what people compare: the SHA-256 of the keys one after the other, in hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    for key in keys:
        digest.update(key)
    return digest.finalize().hex()


def seal_request(
    request: Request, public_key: bytes, suite: AnySuite, sign: cose.Sign, host_key: bytes
) -> SealedRequest:
    """Step 1: sign a request on the token, its one operation, and seal it to the Host."""
    key_id = key_id_of(public_key)
    info = make_info(_REQUEST, suite, key_id)
    recipient = load_public_key(host_key, host_suite(suite))
    signed = cose.sign1(cbor.pack(request), info, suite, sign)
    sealed = host_suite(suite).seal(signed, recipient, info)
    return SealedRequest(cbor.encode([VERSION, suite.number, key_id, sealed]), signed)


def open_request(
    envelope: Envelope, public_key: bytes, host_key: bytes, agree: hpke.Agree
) -> SignedRequest:
    """Step 2: open a request with the Host's sealing key, verify it under the pair's.

    A request whose ephemeral key takes no answer is none. Raises WireError: SUITE, SEAL,
    SIGNATURE, or what unpack() raises for the payload.
    """
    wanted = host_suite(envelope.suite)
    info = make_info(_REQUEST, envelope.suite, envelope.key_id)
    recipient = load_public_key(host_key, wanted)
    evidence = hpke.open_sealed(envelope.sealed, recipient, agree, info, wanted.kem)
    signed = verify_evidence(evidence, public_key, envelope.suite, SPLIT)
    seal_to_ephemeral(b"", signed.request.request_info.ephemeral_key, info)
    return signed


def seal_response(
    response: Response, request: Envelope, ephemeral_key: bytes, sign: cose.Sign
) -> bytes:
    """Step 7: sign a response with the Host's signing key, seal it to the Client's ephemeral one.

    `ephemeral_key` is of the request that is answered. Raises WireError (FIELD) if it is none.
    """
    info = make_info(_response_to(request), request.suite, request.key_id)
    signed = cose.sign1(cbor.pack(response), info, host_suite(request.suite), sign)
    sealed = seal_to_ephemeral(signed, ephemeral_key, info)
    return cbor.encode([VERSION, request.suite.number, request.key_id, sealed])


def open_response(
    data: bytes, request: Envelope, host_key: bytes, ephemeral: EphemeralKey
) -> Response:
    """Step 9: open the response to this request, and no other; the token has no part in it.

    `host_key` is the Host's signing key. Raises WireError; BINDING where it is under
    another suite or key.
    """
    envelope = take_apart(data, MAX_RESPONSE)
    if len(envelope.sealed) < LEAST_SEALED_LENGTH:
        raise WireError(Fault.SEAL, "too short for an encapsulated key and a tag")
    if (envelope.suite, envelope.key_id) != (request.suite, request.key_id):
        raise WireError(Fault.BINDING, "a response under another suite or key")
    signer = host_suite(request.suite)
    info = make_info(_response_to(request), request.suite, request.key_id)
    signed = ephemeral.open_sealed(envelope.sealed, info)
    payload = cose.verify1(signed, info, signer, load_public_key(host_key, signer), MAX_RESPONSE)
    return cast("Response", cbor.unpack_union(payload, Response, MAX_RESPONSE))


def _response_to(request: Envelope) -> Purpose:
    return Purpose(Direction.RESPONSE, request.digest, SPLIT)


def _is_of(public_key: bytes, suite: EcSuite) -> bool:
    try:
        load_public_key(public_key, suite)
    except WireError:
        return False
    return True

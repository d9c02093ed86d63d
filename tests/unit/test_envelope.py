"""Seal and signature: what was sealed opens, and nothing opens out of its place."""

import secrets

import pytest
from cryptography.hazmat.primitives import hashes

from carnet.wire import cbor, cose
from carnet.wire.envelope import (
    Direction,
    Purpose,
    make_info,
    open_request,
    open_response,
    parse_envelope,
    seal_request,
    seal_response,
    verify_evidence,
)
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import key_id_of, load_public_key
from carnet.wire.messages import Refusal, RefusalCode
from carnet.wire.suites import P256, P384
from tests.unit.examples import SoftwareKey, make_request


@pytest.fixture
def pair():
    return SoftwareKey()


@pytest.fixture
def request_bytes(pair):
    return seal_request(make_request(), pair.public_key, P256, pair)


def refusal_for(request_id):
    return Refusal(request_id=request_id, code=RefusalCode.NETWORK, reason="No.", invalid_pairs=())


def fault_of(call, *arguments):
    with pytest.raises(WireError) as caught:
        call(*arguments)
    return caught.value.fault


def test_a_request_opens_to_what_was_sealed(pair, request_bytes):
    signed = open_request(parse_envelope(request_bytes), pair.public_key, pair)
    assert signed.request == make_request()
    assert verify_evidence(signed.evidence, pair.public_key, P256) == signed


def test_a_response_opens_to_what_was_sealed(pair, request_bytes):
    envelope = parse_envelope(request_bytes)
    refusal = refusal_for(make_request().request_id)
    sealed = seal_response(refusal, envelope, pair.public_key, pair)
    assert open_response(sealed, envelope, pair.public_key, pair) == refusal


def test_our_opening_agrees_with_the_library(pair):
    public = load_public_key(pair.public_key, P256)
    sealed = P256.seal(b"word", public, b"info")
    assert P256.kem.seals.decrypt(sealed, pair.key, b"info") == b"word"
    assert P256.open_sealed(sealed, public, pair, b"info") == b"word"


def test_a_request_turned_round_is_no_response(pair, request_bytes):
    envelope = parse_envelope(request_bytes)
    assert fault_of(open_response, request_bytes, envelope, pair.public_key, pair) is Fault.SEAL


def test_a_response_answers_one_request_only(pair, request_bytes):
    other = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    sealed = seal_response(refusal_for(bytes(16)), other, pair.public_key, pair)
    ours = parse_envelope(request_bytes)
    assert fault_of(open_response, sealed, ours, pair.public_key, pair) is Fault.SEAL


def test_a_request_under_another_key_id_does_not_open(pair, request_bytes):
    version, suite, key_id, sealed = cbor.decode(request_bytes)
    moved = cbor.encode([version, suite, bytes(reversed(key_id)), sealed])
    assert fault_of(open_request, parse_envelope(moved), pair.public_key, pair) is Fault.SEAL


def test_a_signature_for_another_purpose_does_not_hold(pair):
    payload = cbor.pack(make_request())
    key_id = key_id_of(pair.public_key)
    info = make_info(Purpose(Direction.RESPONSE, bytes(32)), P256, key_id)
    signed = cose.sign1(payload, info, P256, pair.sign)
    assert fault_of(verify_evidence, signed, pair.public_key, P256) is Fault.SIGNATURE


def test_a_signature_by_another_key_does_not_hold(pair):
    """Sealed rightly, signed by somebody else: the seal alone proves nothing."""
    forger = SoftwareKey()
    key_id = key_id_of(pair.public_key)
    info = make_info(Purpose(Direction.REQUEST), P256, key_id)
    signed = cose.sign1(cbor.pack(make_request()), info, P256, forger.sign)
    sealed = P256.seal(signed, load_public_key(pair.public_key, P256), info)
    envelope = parse_envelope(cbor.encode([1, 1, key_id, sealed]))
    assert fault_of(open_request, envelope, pair.public_key, pair) is Fault.SIGNATURE


@pytest.mark.parametrize("position", [0, 1, 70, -1])
def test_a_flipped_bit_in_the_seal_is_found(pair, request_bytes, position):
    version, suite, key_id, sealed = cbor.decode(request_bytes)
    changed = bytearray(sealed)
    changed[position] ^= 1
    forged = cbor.encode([version, suite, key_id, bytes(changed)])

    def open_forged():
        open_request(parse_envelope(forged), pair.public_key, pair)

    assert fault_of(open_forged) is Fault.SEAL


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda data: b"", Fault.FRAMING),
        (lambda data: data + b"\x00", Fault.CANONICAL),
        (lambda data: data[:-1], Fault.FRAMING),
        (lambda data: b"\x9f" + data[1:] + b"\xff", Fault.CANONICAL),
        (lambda data: b"\x84\x18\x01" + data[2:], Fault.CANONICAL),
        (lambda data: b"\x84\x02" + data[2:], Fault.VERSION),
        (lambda data: b"\x84\x01\x09" + data[3:], Fault.SUITE),
        (lambda data: b"\x84\x01\xf5" + data[3:], Fault.FRAMING),
        (lambda data: cbor.encode(cbor.decode(data)[:3]), Fault.FRAMING),
        (lambda data: cbor.encode([*cbor.decode(data)[:2], b"short", b""]), Fault.FRAMING),
        (lambda data: cbor.encode([*cbor.decode(data)[:3], b"short"]), Fault.SEAL),
        (lambda data: cbor.encode([*cbor.decode(data)[:3], bytes(9000)]), Fault.FRAMING),
    ],
)
def test_what_can_be_seen_from_outside_is_refused_there(request_bytes, change, fault):
    assert fault_of(parse_envelope, change(request_bytes)) is fault


def test_a_point_off_the_curve_never_reaches_the_token(request_bytes):
    version, suite, key_id, sealed = cbor.decode(request_bytes)
    off_curve = b"\x04" + secrets.token_bytes(64) + sealed[65:]
    forged = cbor.encode([version, suite, key_id, off_curve])
    assert fault_of(parse_envelope, forged) is Fault.SEAL


def test_the_key_id_is_the_truncated_hash_of_the_public_key(pair):
    digest = hashes.Hash(hashes.SHA256())
    digest.update(pair.public_key)
    assert key_id_of(pair.public_key) == digest.finalize()[:16]


def test_a_public_key_of_another_curve_is_refused():
    other = SoftwareKey(P384)
    assert fault_of(load_public_key, other.public_key, P256) is Fault.FIELD

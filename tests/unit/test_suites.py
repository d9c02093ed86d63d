"""Every suite alike: what was sealed opens, what cannot open costs no token operation."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carnet.wire import cbor, cose
from carnet.wire.envelope import (
    Direction,
    Envelope,
    Purpose,
    make_info,
    open_request,
    open_response,
    parse_envelope,
    seal_request,
    seal_response,
)
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import encode_public_key, key_id_of, load_public_key
from carnet.wire.messages import Refusal, RefusalCode
from carnet.wire.suites import (
    ALL_SUITES,
    P256,
    P384,
    RSA,
    RSA_SHA1,
    SUITES,
    SuiteName,
    find_suite,
    name_of,
    numbers_of,
    suite_of_key,
)
from tests.unit.examples import SoftwareKey, make_request

EVERY = [*SUITES.values()]
OPENS = {P256: "agree", P384: "agree", RSA: "decrypt", RSA_SHA1: "decrypt"}
RSA_SUITES = [RSA, RSA_SHA1]


@pytest.fixture(params=EVERY, ids=lambda suite: suite.name)
def suite(request):
    return request.param


@pytest.fixture
def pair(suite):
    return SoftwareKey(suite)


def fault_of(call, *arguments):
    with pytest.raises(WireError) as caught:
        call(*arguments)
    return caught.value


def resealed(data, sealed, suite=None):
    """The message with another sealed part, or under another suite."""
    version, number, key_id, _ = cbor.decode(data)
    return cbor.encode([version, suite.number if suite else number, key_id, sealed])


def test_a_request_and_its_answer_open(pair, suite):
    data = seal_request(make_request(), pair.public_key, suite, pair)
    envelope = parse_envelope(data)
    assert envelope.suite is suite
    assert open_request(envelope, pair.public_key, pair).request == make_request()
    refusal = Refusal(
        request_id=bytes(16), code=RefusalCode.NETWORK, reason="No.", invalid_pairs=()
    )
    answer = seal_response(refusal, envelope, pair.public_key, pair)
    assert open_response(answer, envelope, pair.public_key, pair) == refusal


def test_a_message_costs_two_operations_of_the_private_key(pair, suite):
    """One to sign; one to open; verifying and sealing take none."""
    data = seal_request(make_request(), pair.public_key, suite, pair)
    assert pair.operations == ["sign"]
    open_request(parse_envelope(data), pair.public_key, pair)
    assert pair.operations == ["sign", OPENS[suite]]


def test_the_largest_request_fits_whatever_the_key(suite):
    """Eight IPsec implementations, 32 networks, the longest names; the largest RSA keys."""
    pair = SoftwareKey(suite, file="rsa-4096")
    driver = make_request().request_info.drivers[0]
    request = make_request(
        user_id="a" * 63 + "@" + "b" * 63,
        target="w" * 63,
        networks=tuple(f"2001:db8:{n:x}::/48" for n in range(1, 33)),
        drivers=(driver,) * 8,
    )
    data = seal_request(request, pair.public_key, suite, pair)
    assert open_request(parse_envelope(data), pair.public_key, pair).request == request


@pytest.mark.parametrize("length", [0, 1, 64, 80])
def test_what_is_too_short_for_any_suite_is_refused_from_outside(pair, suite, length):
    data = seal_request(make_request(), pair.public_key, suite, pair)
    cut = resealed(data, cbor.decode(data)[3][:length])
    assert fault_of(parse_envelope, cut).fault is Fault.SEAL


@pytest.mark.parametrize("other", EVERY, ids=lambda suite: suite.name)
def test_a_message_opens_under_its_own_suite_only(pair, suite, other):
    if other is suite:
        return
    data = seal_request(make_request(), pair.public_key, suite, pair)
    moved = resealed(data, cbor.decode(data)[3], other)

    def open_moved():
        open_request(parse_envelope(moved), pair.public_key, pair)

    assert fault_of(open_moved).fault in {Fault.SEAL, Fault.FIELD}


def test_a_signature_of_another_suite_does_not_hold(pair, suite):
    for other in EVERY:
        info = make_info(Purpose(Direction.REQUEST), other, key_id_of(pair.public_key))
        signed = cose.sign1(cbor.pack(make_request()), info, suite, pair.sign)
        right = make_info(Purpose(Direction.REQUEST), suite, key_id_of(pair.public_key))
        public_key = load_public_key(pair.public_key, suite)
        if other is suite:
            assert cose.verify1(signed, right, suite, public_key)
        else:
            caught = fault_of(cose.verify1, signed, right, suite, public_key)
            assert caught.fault is Fault.SIGNATURE


def test_an_answer_under_another_suite_of_the_same_key_is_none(pair, suite):
    envelope = parse_envelope(seal_request(make_request(), pair.public_key, suite, pair))
    refusal = Refusal(
        request_id=bytes(16), code=RefusalCode.NETWORK, reason="No.", invalid_pairs=()
    )
    for other in RSA_SUITES:
        if suite in RSA_SUITES and other is not suite:
            asked = Envelope(other, envelope.key_id, envelope.sealed, envelope.digest)
            answer = seal_response(refusal, asked, pair.public_key, pair)
            caught = fault_of(open_response, answer, envelope, pair.public_key, pair)
            assert caught.fault is Fault.BINDING


# RSA: what an oracle would need to tell apart.


@pytest.fixture(params=RSA_SUITES, ids=lambda suite: suite.name)
def rsa_suite(request):
    return request.param


@pytest.fixture
def rsa_pair(rsa_suite):
    return SoftwareKey(rsa_suite)


def oaep(suite):
    return padding.OAEP(padding.MGF1(suite.oaep), suite.oaep, None)


def test_what_rsa_cannot_have_made_never_reaches_the_token(rsa_suite, rsa_pair):
    public_key = rsa_pair.key.public_key()
    modulus = public_key.public_numbers().n.to_bytes(256, "big")
    sealed = rsa_suite.seal(b"word", public_key, b"info")
    for wrong in (
        modulus + sealed[256:],
        b"\xff" * 256 + sealed[256:],
        sealed[: 256 + 15],
        sealed[:256],
        sealed[:255],
        b"",
    ):
        caught = fault_of(rsa_suite.open_sealed, wrong, public_key, rsa_pair, b"info")
        assert caught.fault is Fault.SEAL
    assert rsa_pair.operations == []


def test_a_message_too_short_for_this_modulus_never_reaches_the_token(rsa_suite):
    """From outside it is long enough for the smallest modulus; the pair's is larger."""
    pair = SoftwareKey(rsa_suite, file="rsa-4096")
    sealed = bytes(256 + 16)
    rsa_suite.check_sealed(sealed)
    caught = fault_of(rsa_suite.open_sealed, sealed, pair.key.public_key(), pair, b"info")
    assert caught.fault is Fault.SEAL
    assert pair.operations == []


def wrong_seals(suite, public_key):
    """Seals of which each fails at another place: padding, length of the key, tag."""
    right = suite.seal(b"word", public_key, b"info")
    content_key = bytes(32)
    rest = AESGCM(content_key).encrypt(bytes(12), b"word", b"info")
    return {
        "padding": bytes(255) + b"\x01" + rest,
        "first byte": public_key.encrypt(content_key, padding.PKCS1v15()) + rest,
        "no key": public_key.encrypt(b"", oaep(suite)) + rest,
        "short key": public_key.encrypt(bytes(16), oaep(suite)) + rest,
        "long key": public_key.encrypt(bytes(48), oaep(suite)) + rest,
        "another key": public_key.encrypt(b"\x01" * 32, oaep(suite)) + rest,
        "tag": right[:-1] + bytes([right[-1] ^ 1]),
        "info": suite.seal(b"word", public_key, b"another"),
    }


def test_whatever_does_not_open_says_the_same_and_costs_the_same(rsa_suite, rsa_pair):
    public_key = rsa_pair.key.public_key()
    said = set()
    for wrong in wrong_seals(rsa_suite, public_key).values():
        rsa_pair.operations.clear()
        caught = fault_of(rsa_suite.open_sealed, wrong, public_key, rsa_pair, b"info")
        said.add((str(caught), caught.__suppress_context__, *rsa_pair.operations))
    assert said == {("seal: the seal does not open", True, "decrypt")}


def test_no_key_of_a_length_of_its_own_is_used(rsa_suite, rsa_pair):
    """AES-128 under a key of 16 bytes would open, if it were let."""
    public_key = rsa_pair.key.public_key()
    short = bytes(16)
    sealed = public_key.encrypt(short, oaep(rsa_suite)) + AESGCM(short).encrypt(
        bytes(12), b"word", b"info"
    )
    caught = fault_of(rsa_suite.open_sealed, sealed, public_key, rsa_pair, b"info")
    assert caught.fault is Fault.SEAL


def test_a_content_key_is_used_once(rsa_suite, rsa_pair):
    """The nonce is constant: two seals must have nothing in common."""
    public_key = rsa_pair.key.public_key()
    one, other = (rsa_suite.seal(bytes(64), public_key, b"info") for _ in range(2))
    assert one[:256] != other[:256]
    assert one[256:] != other[256:]


# Which suite a key is of.


def test_a_pair_tells_its_suite_or_the_cover_does():
    for suite in (P256, P384):
        public_key = SoftwareKey(suite).public_key
        for named in (1, 2, 3, 4, 250):
            assert suite_of_key(public_key, named) is suite
    for file in ("rsa-2048", "rsa-3072", "rsa-4096"):
        public_key = SoftwareKey(RSA, file=file).public_key
        assert suite_of_key(public_key, 2) is RSA
        assert suite_of_key(public_key, 4) is RSA_SHA1
        for named in (1, 3, 250):
            assert fault_of(suite_of_key, public_key, named).fault is Fault.SUITE
    p521 = encode_public_key(ec.generate_private_key(ec.SECP521R1()).public_key())
    assert fault_of(suite_of_key, p521, 1).fault is Fault.FIELD


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (2048, 3), (2056, 65537)])
def test_an_rsa_key_of_another_size_or_exponent_is_of_no_suite(bits, exponent):
    key = rsa.generate_private_key(exponent, bits).public_key()
    assert fault_of(load_public_key, encode_public_key(key), RSA).fault is Fault.FIELD


def test_every_suite_has_one_number_and_one_name():
    assert {suite.number: suite.name for suite in EVERY} == {
        1: "p-256", 2: "rsa", 3: "p-384", 4: "rsa-sha1",
    }  # fmt: skip
    assert numbers_of(ALL_SUITES) == {1, 2, 3, 4}
    assert numbers_of([SuiteName.P384, SuiteName.RSA_SHA1]) == {3, 4}
    assert (name_of(4), name_of(9)) == ("rsa-sha1", "9")
    for number in (0, 5, -1, 256):
        assert fault_of(find_suite, number).fault is Fault.SUITE

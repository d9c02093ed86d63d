"""Our signatures, verified by a COSE library that is not ours."""

import pytest
from pycose.algorithms import Es256, Es384, Ps256
from pycose.headers import Algorithm
from pycose.keys import EC2Key, RSAKey
from pycose.keys.curves import P256 as CURVE_P256
from pycose.keys.curves import P384 as CURVE_P384
from pycose.messages import Sign1Message

from carnet.wire import cbor, cose
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1
from tests.unit.examples import ALL_SUITES, SoftwareKey

PAYLOAD = b"payload"
PURPOSE = b"purpose"
ALGORITHMS = {P256: Es256, P384: Es384, RSA: Ps256, RSA_SHA1: Ps256}
CURVES = {P256: CURVE_P256, P384: CURVE_P384}


@pytest.fixture(params=ALL_SUITES, ids=lambda suite: suite.name)
def suite(request):
    return request.param


@pytest.fixture
def pair(suite):
    return SoftwareKey(suite)


def theirs(pair):
    """The key as the other library has it, the private half included."""
    if pair.suite not in CURVES:
        return theirs_of_rsa(pair.key.private_numbers())
    point = pair.key.public_key().public_numbers()
    size = pair.suite.coordinate
    return EC2Key(
        crv=CURVES[pair.suite],
        x=point.x.to_bytes(size, "big"),
        y=point.y.to_bytes(size, "big"),
        d=pair.key.private_numbers().private_value.to_bytes(size, "big"),
    )


def theirs_of_rsa(numbers):
    public = numbers.public_numbers
    parts = {
        "n": public.n, "e": public.e, "d": numbers.d, "p": numbers.p, "q": numbers.q,
        "dp": numbers.dmp1, "dq": numbers.dmq1, "qinv": numbers.iqmp,
    }  # fmt: skip
    return RSAKey(
        **{name: n.to_bytes((n.bit_length() + 7) // 8, "big") for name, n in parts.items()}
    )


def read(signed, pair, purpose=PURPOSE):
    """The COSE_Sign1, as the other library reads it, ready to be verified."""
    message = Sign1Message.from_cose_obj(cbor.decode(signed), allow_unknown_attributes=False)
    message.key = theirs(pair)
    message.external_aad = purpose
    return message


def test_our_signature_holds_there(pair, suite):
    message = read(cose.sign1(PAYLOAD, PURPOSE, suite, pair.sign), pair)
    assert message.phdr == {Algorithm: ALGORITHMS[suite]}
    assert message.payload == PAYLOAD
    assert message.verify_signature()


def test_it_holds_for_one_purpose_and_one_key(pair, suite):
    signed = cose.sign1(PAYLOAD, PURPOSE, suite, pair.sign)
    other = SoftwareKey(suite, file="rsa-2048-other")
    assert not read(signed, pair, b"another purpose").verify_signature()
    assert not read(signed, other).verify_signature()


def test_their_signature_holds_here(pair, suite):
    message = Sign1Message(
        phdr={Algorithm: ALGORITHMS[suite]}, payload=PAYLOAD, external_aad=PURPOSE
    )
    message.key = theirs(pair)
    signed = message.encode(tag=False)
    assert cose.verify1(signed, PURPOSE, suite, pair.key.public_key()) == PAYLOAD

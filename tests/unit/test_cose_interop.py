"""Our signatures, verified by a COSE library that is not ours."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pycose.algorithms import Es256
from pycose.headers import Algorithm
from pycose.keys import EC2Key
from pycose.keys.curves import P256 as CURVE
from pycose.messages import Sign1Message

from carnet.wire import cbor, cose
from carnet.wire.suites import P256
from tests.unit.examples import SoftwareKey

PAYLOAD = b"payload"
PURPOSE = b"purpose"


@pytest.fixture
def pair():
    return SoftwareKey()


def theirs(pair):
    """The key as the other library has it, the private half included."""
    point = pair.key.public_key().public_numbers()
    return EC2Key(
        crv=CURVE,
        x=point.x.to_bytes(32, "big"),
        y=point.y.to_bytes(32, "big"),
        d=pair.key.private_numbers().private_value.to_bytes(32, "big"),
    )


def read(signed, pair, purpose=PURPOSE):
    """The COSE_Sign1, as the other library reads it, ready to be verified."""
    message = Sign1Message.from_cose_obj(cbor.decode(signed), allow_unknown_attributes=False)
    message.key = theirs(pair)
    message.external_aad = purpose
    return message


def test_our_signature_holds_there(pair):
    message = read(cose.sign1(PAYLOAD, PURPOSE, P256, pair.sign), pair)
    assert message.phdr == {Algorithm: Es256}
    assert message.payload == PAYLOAD
    assert message.verify_signature()


def test_it_holds_for_one_purpose_and_one_key(pair):
    signed = cose.sign1(PAYLOAD, PURPOSE, P256, pair.sign)
    assert not read(signed, pair, b"another purpose").verify_signature()
    assert not read(signed, SoftwareKey()).verify_signature()


def test_their_signature_holds_here(pair):
    message = Sign1Message(phdr={Algorithm: Es256}, payload=PAYLOAD, external_aad=PURPOSE)
    message.key = theirs(pair)
    signed = message.encode(tag=False)
    public_key = pair.key.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    assert cose.verify1(signed, PURPOSE, P256, public_key) == PAYLOAD

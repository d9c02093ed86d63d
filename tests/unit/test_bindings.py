"""One attack for each thing that a seal or a signature is bound to.

Each attacker here has all but the one binding in his favour: the keys are right, and
whatever else might stop him is as he needs it. So each test fails when its binding is
taken out of `info`, and only that.
"""

import dataclasses

import ecdsa
import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec import structs

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
from carnet.wire.keys import encode_public_key, key_id_of, load_public_key
from carnet.wire.messages import Refusal, RefusalCode
from carnet.wire.session_key import EphemeralKey, SessionBinding, make_session_key
from carnet.wire.suites import P256
from tests.unit.examples import SoftwareKey, make_request

REQUEST = Purpose(Direction.REQUEST)
WITHDRAWN = dataclasses.replace(P256, number=201)
"""A suite with the keys of suite 1, which an operator no longer allows."""


@pytest.fixture
def pair():
    return SoftwareKey()


def sign_as(purpose, message, pair, suite=P256):
    """Sign as whoever holds the pair's private key can: both ends do."""
    info = make_info(purpose, suite, key_id_of(pair.public_key))
    return cose.sign1(cbor.pack(message), info, suite, pair.sign)


def seal_as(purpose, signed, pair, suite=P256):
    """Seal as everybody can who knows the pair's public key."""
    key_id = key_id_of(pair.public_key)
    info = make_info(purpose, suite, key_id)
    sealed = suite.seal(signed, load_public_key(pair.public_key, suite), info)
    return cbor.encode([1, P256.number, key_id, sealed])


def refusal(reason):
    return Refusal(request_id=bytes(16), code=RefusalCode.NETWORK, reason=reason, invalid_pairs=())


def assert_stopped(fault, attack, *arguments):
    with pytest.raises(WireError) as caught:
        attack(*arguments)
    assert caught.value.fault is fault


# Direction: reflection.


def test_direction_what_host_sealed_cannot_be_reflected_to_it_as_a_request(pair):
    """Host's words to the Client, given back to Host: both hold the pair, so both could say it."""
    from_host = Purpose(Direction.RESPONSE)
    reflected = seal_as(from_host, sign_as(REQUEST, make_request(), pair), pair)
    assert_stopped(Fault.SEAL, open_request, parse_envelope(reflected), pair.public_key, pair)


def test_direction_what_host_signed_is_no_evidence_that_the_client_asked(pair):
    """Host's signature, shown to Target as the Client's: the same key makes both."""
    signed_by_host = sign_as(Purpose(Direction.RESPONSE), make_request(), pair)
    assert_stopped(Fault.SIGNATURE, verify_evidence, signed_by_host, pair.public_key, P256)


def test_direction_what_the_client_sealed_cannot_be_reflected_to_it_as_an_answer(pair):
    """The Client's words, given back to it: bound to the right request, they would refuse it."""
    ours = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    from_client = Purpose(Direction.REQUEST, ours.digest)
    answer = Purpose(Direction.RESPONSE, ours.digest)
    reflected = seal_as(from_client, sign_as(answer, refusal("No."), pair), pair)
    assert_stopped(Fault.SEAL, open_response, reflected, ours, pair.public_key, pair)
    reflected = seal_as(answer, sign_as(from_client, refusal("No."), pair), pair)
    assert_stopped(Fault.SIGNATURE, open_response, reflected, ours, pair.public_key, pair)


# key_id: a message moved to another key.


def test_key_id_a_request_cannot_be_filed_under_another_pair(pair):
    """Under another pair's name on the outside, Host would spend that pair for it."""
    envelope = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    moved = structs.replace(envelope, key_id=key_id_of(SoftwareKey().public_key))
    assert_stopped(Fault.SEAL, open_request, moved, pair.public_key, pair)


def second_key_for(signed, info):
    """Return another public key under which the same ECDSA signature over `info` holds.

    Key substitution: from r, s and the digest follow the two keys that could have signed.
    """
    protected, _, payload, signature = cbor.decode(signed)
    structure = cbor.encode(["Signature1", protected, info, payload])
    found = ecdsa.VerifyingKey.from_public_key_recovery(
        signature, structure, ecdsa.NIST256p, hashfunc=ecdsa.util.sha256
    )
    return [encode_public_key(load_der_public_key(key.to_der())) for key in found]


def test_key_id_a_signature_cannot_be_claimed_for_a_second_key(pair):
    """Somebody makes a key to fit Alice's signature, and says that it was his request."""
    info = make_info(REQUEST, P256, key_id_of(pair.public_key))
    evidence = sign_as(REQUEST, make_request(), pair)
    candidates = second_key_for(evidence, info)
    assert pair.public_key in candidates
    (made_to_fit,) = {*candidates} - {pair.public_key}
    payload = cose.verify1(evidence, info, P256, load_public_key(made_to_fit, P256))
    assert payload == cbor.pack(make_request()), "the key fits: ECDSA alone does not stop it"
    assert_stopped(Fault.SIGNATURE, verify_evidence, evidence, made_to_fit, P256)


# The request's hash: the answer of another request.


def test_request_hash_the_answer_to_an_earlier_request_is_no_answer_to_this_one(pair):
    """A recorded refusal, played to the Client when it asks anew with the same pair."""
    earlier = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    recorded = seal_response(refusal("Not today."), earlier, pair.public_key, pair)
    assert open_response(recorded, earlier, pair.public_key, pair) == refusal("Not today.")
    now = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    assert_stopped(Fault.SEAL, open_response, recorded, now, pair.public_key, pair)


def test_request_hash_an_answer_cannot_be_sealed_anew_for_another_request(pair):
    """The Host's signed answer to an earlier request, in a fresh seal for this one.

    Sealing takes no secret, and whoever sees the earlier answer opened has the signed text.
    """
    earlier = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    signed = sign_as(Purpose(Direction.RESPONSE, earlier.digest), refusal("Not today."), pair)
    now = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    resealed = seal_as(Purpose(Direction.RESPONSE, now.digest), signed, pair)
    assert_stopped(Fault.SIGNATURE, open_response, resealed, now, pair.public_key, pair)


# Suite: a message said to be of another suite.


def test_suite_a_request_of_a_suite_not_allowed_cannot_pass_for_one_that_is(pair):
    """The number on the outside is anybody's to change; that within the seal is not."""
    signed = sign_as(REQUEST, make_request(), pair)
    relabelled = parse_envelope(seal_as(REQUEST, signed, pair, WITHDRAWN))
    assert relabelled.suite is P256
    assert_stopped(Fault.SEAL, open_request, relabelled, pair.public_key, pair)


def test_suite_a_signature_of_a_suite_not_allowed_is_no_evidence(pair):
    """What was signed by the rules of one suite is shown to Target as of another."""
    evidence = sign_as(REQUEST, make_request(), pair, WITHDRAWN)
    assert_stopped(Fault.SIGNATURE, verify_evidence, evidence, pair.public_key, P256)


def test_suite_an_answer_of_a_suite_not_allowed_cannot_pass_for_one_that_is(pair):
    """As for requests, toward the Client."""
    ours = parse_envelope(seal_request(make_request(), pair.public_key, P256, pair))
    answer = Purpose(Direction.RESPONSE, ours.digest)
    relabelled = seal_as(answer, sign_as(answer, refusal("No."), pair), pair, WITHDRAWN)
    assert_stopped(Fault.SEAL, open_response, relabelled, ours, pair.public_key, pair)


# The session key: a Host that carries it, and asks for another with the Client's own key.


HERS = SessionBinding(
    request_id=bytes(range(16)), user_id="alice@office", target="work", objective_id=3
)


def assert_not_hers(**changes):
    """Have Host ask Target with the Client's ephemeral key for something else, and pass it on."""
    ephemeral = EphemeralKey.generate()
    sealed, secrets = make_session_key(ephemeral.public, HERS)
    assert ephemeral.open(sealed, HERS) == secrets
    others, _ = make_session_key(ephemeral.public, structs.replace(HERS, **changes))
    assert_stopped(Fault.SEAL, ephemeral.open, others, HERS)


def test_session_key_of_another_request_does_not_open():
    """Host asks a second time with her ephemeral key, and she stands in the second tunnel."""
    assert_not_hers(request_id=bytes(16))


def test_session_key_made_for_another_user_does_not_open():
    """Host asks in Mallory's name; Alice would work under his rights, and in his accounts."""
    assert_not_hers(user_id="mallory@office")


def test_session_key_of_another_target_does_not_open():
    """Host asks a Target of its choice, and she would send her work to that network."""
    assert_not_hers(target="elsewhere")


def test_session_key_made_for_another_objective_does_not_open():
    """Host asks for less protection than she did."""
    assert_not_hers(objective_id=2)

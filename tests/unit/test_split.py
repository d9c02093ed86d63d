"""Custody `split` in bytes: who seals to whom, and that neither custody passes for the other."""

import pytest

from carnet.wire import cbor, envelope, split
from carnet.wire.envelope import PAIRED, SPLIT, parse_envelope, verify_evidence
from carnet.wire.fault import Fault, WireError
from carnet.wire.messages import Refusal, RefusalCode
from carnet.wire.session_key import EphemeralKey
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1
from tests.unit.examples import EPHEMERAL, SoftwareKey, make_request

SUITES = (P256, RSA, P384)
REFUSAL = Refusal(
    request_id=bytes(range(16)), code=RefusalCode.NETWORK, reason="Not that one.", invalid_pairs=()
)


class Ends:
    """A traveller's pair, and the Host's two keys for it."""

    def __init__(self, suite):
        self.suite = suite
        self.pair = SoftwareKey(suite)
        self.sealing, self.signing = (SoftwareKey(split.host_suite(suite)) for _ in range(2))

    @property
    def host_keys(self):
        return self.sealing.public_key, self.signing.public_key

    def asked(self, **changes):
        return split.seal_request(
            make_request(**changes),
            self.pair.public_key,
            self.suite,
            self.pair.sign,
            self.sealing.public_key,
        )

    def read(self, data, **changes):
        keys = {
            "public_key": self.pair.public_key,
            "host_key": self.sealing.public_key,
            "agree": self.sealing.agree,
        }
        return split.open_request(parse_envelope(data), **(keys | changes))

    def answered(self, data):
        return split.seal_response(
            REFUSAL, parse_envelope(data), EPHEMERAL.public, self.signing.sign
        )

    def heard(self, answer, data, ephemeral=EPHEMERAL, key=None):
        return split.open_response(
            answer, parse_envelope(data), key or self.signing.public_key, ephemeral
        )


@pytest.fixture(params=SUITES, ids=lambda suite: suite.name)
def ends(request):
    return Ends(request.param)


def fault_of(work, *arguments, **named):
    with pytest.raises(WireError) as caught:
        work(*arguments, **named)
    return caught.value.fault


def test_the_token_signs_once_and_does_nothing_else(ends):
    asked = ends.asked()
    signed = ends.read(asked.data)
    assert (signed.request, signed.evidence) == (make_request(), asked.evidence)
    assert ends.heard(ends.answered(asked.data), asked.data) == REFUSAL
    assert ends.pair.operations == ["sign"]
    assert ends.sealing.operations == ["agree"]
    assert ends.signing.operations == ["sign"]


def test_a_request_sealed_to_another_host_key_does_not_open(ends):
    other = Ends(ends.suite)
    data = split.seal_request(
        make_request(), ends.pair.public_key, ends.suite, ends.pair.sign, other.sealing.public_key
    ).data
    assert fault_of(ends.read, data) is Fault.SEAL


def test_a_request_that_nobody_could_answer_is_none(ends):
    lattice = EPHEMERAL.public[:1184]
    data = ends.asked(ephemeral_key=lattice + bytes(32)).data
    assert fault_of(ends.read, data) is Fault.FIELD


def test_a_request_of_custody_paired_does_not_open_under_a_split_pair():
    ends = Ends(P256)
    data = envelope.seal_request(make_request(), ends.pair.public_key, P256, ends.pair)
    assert fault_of(ends.read, data) is Fault.SEAL
    # Nor where the Host's key were the pair's own.
    own = {"host_key": ends.pair.public_key, "agree": ends.pair.agree}
    assert fault_of(ends.read, data, **own) is Fault.SEAL


def test_a_request_of_custody_split_does_not_open_under_a_paired_pair():
    ends = Ends(P256)
    data = split.seal_request(
        make_request(), ends.pair.public_key, P256, ends.pair.sign, ends.pair.public_key
    ).data
    opened = fault_of(envelope.open_request, parse_envelope(data), ends.pair.public_key, ends.pair)
    assert opened is Fault.SEAL


def test_evidence_of_one_custody_is_none_of_the_other(ends):
    evidence = ends.asked().evidence
    verify_evidence(evidence, ends.pair.public_key, ends.suite, SPLIT)
    under = (ends.pair.public_key, ends.suite, PAIRED)
    assert fault_of(verify_evidence, evidence, *under) is Fault.SIGNATURE
    info = envelope.make_info(
        envelope.Purpose(envelope.Direction.REQUEST), ends.suite, envelope.key_id_of(under[0])
    )
    paired = envelope.cose.sign1(cbor.pack(make_request()), info, ends.suite, ends.pair.sign)
    assert fault_of(verify_evidence, paired, *under[:2], SPLIT) is Fault.SIGNATURE


def test_an_answer_of_whoever_is_not_the_host_is_none(ends):
    data = ends.asked().data
    stranger = SoftwareKey(split.host_suite(ends.suite))
    forged = split.seal_response(REFUSAL, parse_envelope(data), EPHEMERAL.public, stranger.sign)
    assert fault_of(ends.heard, forged, data) is Fault.SIGNATURE
    by_pair = ends.pair if split.host_suite(ends.suite) is ends.suite else stranger
    forged = split.seal_response(REFUSAL, parse_envelope(data), EPHEMERAL.public, by_pair.sign)
    assert fault_of(ends.heard, forged, data) is Fault.SIGNATURE


def test_an_answer_is_to_one_request_and_one_ephemeral_key(ends):
    data, other = ends.asked().data, ends.asked().data
    answer = ends.answered(data)
    assert fault_of(ends.heard, answer, other) is Fault.SEAL
    assert fault_of(ends.heard, answer, data, EphemeralKey(bytes(96))) is Fault.SEAL


def test_a_request_is_no_answer(ends):
    data = ends.asked().data
    assert fault_of(ends.heard, data, data) is Fault.SEAL


def test_a_suite_for_the_hash_of_oaep_is_none_of_split():
    pair = SoftwareKey(RSA_SHA1)
    sealing = SoftwareKey(P256).public_key
    arguments = (make_request(), pair.public_key, RSA_SHA1, pair.sign, sealing)
    assert fault_of(split.seal_request, *arguments) is Fault.SUITE
    assert pair.operations == []


def test_the_couple_is_chosen_by_the_curve():
    narrow, wide = Ends(P256).host_keys, Ends(P384).host_keys
    both = (*narrow, *wide)
    assert split.choose_host_keys(both, P256) == split.HostKeys(*narrow)
    assert split.choose_host_keys(both, RSA) == split.HostKeys(*narrow)
    assert split.choose_host_keys(both, P384) == split.HostKeys(*wide)
    assert fault_of(split.choose_host_keys, narrow, P384) is Fault.SUITE
    assert fault_of(split.choose_host_keys, (), P256) is Fault.FIELD
    assert fault_of(split.choose_host_keys, both[:3], P256) is Fault.FIELD
    assert fault_of(split.choose_host_keys, (narrow[0], narrow[0]), P256) is Fault.FIELD
    assert fault_of(split.choose_host_keys, (narrow[0], wide[1]), P256) is Fault.FIELD

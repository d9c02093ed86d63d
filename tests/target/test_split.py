"""Target takes the evidence of a custody for that custody alone."""

import pytest

from carnet.wire import cbor, cose
from carnet.wire.control import TunnelGrant, TunnelRequest
from carnet.wire.envelope import SPLIT, Direction, Purpose, make_info, open_request, parse_envelope
from carnet.wire.envelope import seal_request as seal_paired
from carnet.wire.keys import key_id_of
from carnet.wire.split import host_suite, seal_request
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1
from tests.unit.examples import SoftwareKey, make_request

SUITES = (P256, RSA, P384)


def statement(suite, key, evidence, custody="split"):
    return TunnelRequest(
        version=1,
        user_id="alice@office",
        custody=custody,
        suite=suite.number,
        public_key=key.public_key,
        evidence=evidence,
    )


def signed_in_split(suite, key):
    host = SoftwareKey(host_suite(suite)).public_key
    return seal_request(make_request(), key.public_key, suite, key.sign, host).evidence


def answer_to(with_agent, *parts):
    async def body(agent):
        return (await agent.answer(statement(*parts), "office")).answer

    return with_agent(body)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_evidence_in_custody_split_is_verified(with_agent, suite):
    key = SoftwareKey(suite)
    answer = answer_to(with_agent, suite, key, signed_in_split(suite, key))
    assert isinstance(answer, TunnelGrant)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_a_host_that_states_another_custody_is_not_believed(with_agent, suite):
    key = SoftwareKey(suite)
    crossed = answer_to(with_agent, suite, key, signed_in_split(suite, key), "paired")
    sealed = seal_paired(make_request(), key.public_key, suite, key)
    paired = open_request(parse_envelope(sealed), key.public_key, key).evidence
    for refused in (crossed, answer_to(with_agent, suite, key, paired)):
        assert refused.code == "evidence-not-accepted"
        assert "signature" in refused.reason


def test_there_is_one_rsa_suite_in_custody_split(with_agent):
    key = SoftwareKey(RSA_SHA1)
    purpose = Purpose(Direction.REQUEST, custody=SPLIT)
    info = make_info(purpose, RSA_SHA1, key_id_of(key.public_key))
    evidence = cose.sign1(cbor.pack(make_request()), info, RSA_SHA1, key.sign)
    refused = answer_to(with_agent, RSA_SHA1, key, evidence)
    assert refused.code == "evidence-not-accepted"
    assert "not in custody split" in refused.reason

"""Target verifies evidence of every suite, and takes that of those its operator allows."""

import msgspec
import pytest

from carnet.wire.control import TunnelGrant, TunnelRequest
from carnet.wire.envelope import open_request, parse_envelope, seal_request
from carnet.wire.suites import RSA, RSA_SHA1, SuiteName
from target_agent import config as configuration
from target_agent.template import Answers, render
from tests.unit.examples import ALL_SUITES, SoftwareKey, make_request


def statement_of(suite, **changes):
    """Host's statement about a request that a pair of this suite signed."""
    key = SoftwareKey(suite)
    sealed = seal_request(make_request(**changes), key.public_key, suite, key)
    signed = open_request(parse_envelope(sealed), key.public_key, key)
    return TunnelRequest(
        version=1,
        user_id="alice@office",
        custody="paired",
        suite=suite.number,
        public_key=key.public_key,
        evidence=signed.evidence,
    )


@pytest.mark.parametrize("suite", ALL_SUITES, ids=lambda suite: suite.name)
def test_evidence_of_every_suite_is_verified(with_agent, suite):
    async def body(agent):
        return (await agent.answer(statement_of(suite), "office")).answer

    assert isinstance(with_agent(body), TunnelGrant)


@pytest.mark.parametrize("suite", ALL_SUITES, ids=lambda suite: suite.name)
def test_evidence_of_a_suite_not_allowed_is_refused_with_the_reason(with_agent, config, suite):
    others = tuple(name for name in SuiteName if name != suite.name)

    async def body(agent):
        return (await agent.answer(statement_of(suite), "office")).answer

    refused = with_agent(body, config=msgspec.structs.replace(config, suites=others))
    assert refused.code == "evidence-not-accepted"
    assert f"does not allow suite {suite.name}" in refused.reason


def test_a_statement_of_another_suite_than_the_evidences_is_refused(with_agent):
    async def body(agent):
        statement = msgspec.structs.replace(statement_of(RSA), suite=RSA_SHA1.number)
        return (await agent.answer(statement, "office")).answer

    assert with_agent(body).code == "evidence-not-accepted"


def test_the_file_that_init_writes_allows_every_suite(tmp_path):
    answers = Answers(
        name="work",
        addresses=("198.51.100.2",),
        networks=("10.20.0.0/16",),
        virtual_addresses="10.99.0.0/16",
    )
    path = tmp_path / "target.toml"
    path.write_text(render(answers))
    assert configuration.load(path).suites == tuple(SuiteName)

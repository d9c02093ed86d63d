"""Two requests under one pair: one is opened while the answer to the other burns the key."""

import asyncio

import pytest

from carnet.errors import TokenError
from host_agent.exchange import Exchange, Parts
from host_agent.leases import Leases
from host_agent.outcome import Later, Rejected
from host_agent.server import HostService
from tests.host.conftest import sealed_request


class FakeKeylessHsm:
    """A fake: it has lost the private key, for which something else happened before."""

    def __init__(self, before):
        self._before = before

    async def open_request(self, *_):
        self._before()
        raise TokenError("The token does not hold the key pair.")


@pytest.fixture
def outcome_of(database):
    def run(envelope, before):
        async def main():
            parts = Parts(database, FakeKeylessHsm(before), None, Leases(database), None)
            exchange = Exchange(parts, envelope)
            await HostService(parts)._run(exchange)
            return await exchange.outcome

        return asyncio.run(main())

    return run


def test_what_another_request_was_quicker_than_is_rejected_like_anything_else(
    database, pair, outcome_of
):
    quick, late = sealed_request(pair), sealed_request(pair)
    assert outcome_of(late[0], lambda: database.spend(*quick)) == Rejected()


def test_a_key_that_is_missing_is_the_hosts_own_trouble(pair, outcome_of):
    envelope, _ = sealed_request(pair)
    assert outcome_of(envelope, lambda: None) == Later("host-not-ready")

"""A Target's list of ended tunnels, also where Target's database was made anew or put back."""

import asyncio
import secrets
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from carnet import audit
from carnet.wire.control import EndedTunnels, TunnelEnded
from host_agent import schema
from host_agent.accounts import _follow
from tests.host.conftest import sealed_request

ENOUGH = 2
"""How often a Target has nothing to tell before the test goes on."""


class Target:
    """What a Target answers from its records."""

    def __init__(self, *request_ids, first=1):
        self.list = [
            TunnelEnded(number=number, request_id=each, reason="expired", ended_at=5)
            for number, each in enumerate(request_ids, first)
        ]
        self.asked, self.waits = [], 0

    async def ended(self, _, after):
        self.asked.append(after)
        found = tuple(each for each in self.list if each.number > after)
        self.waits += not found
        if self.waits == ENOUGH:
            raise asyncio.CancelledError
        return EndedTunnels(tunnels=found)


def follow(database, target):
    """Read a Target's list until it has nothing more; return what was warned of."""

    async def main():
        with suppress(asyncio.CancelledError):
            await _follow(database, target, "work")

    with capture_logs() as logs:
        asyncio.run(main())
    return [each["event"] for each in logs if each["log_level"] == "warning"]


def accounted(database):
    """Return the Request IDs of the ends in the accounts, in their order."""
    with database.begin() as connection:
        records = audit.read(connection, schema.audit)
        return [each.facts["request_id"] for each in records if each.event == "tunnel-ended"]


@pytest.fixture
def ask(database):
    def do(key):
        envelope, signed = sealed_request(key, request_id=secrets.token_bytes(16))
        database.spend(envelope, signed)
        database.store_response(envelope.key_id, "granted", b"answer")
        return signed.request.request_id

    return do


@pytest.fixture
def old(ask, pair):
    """The Request ID of a tunnel whose end, Target's ninth, is accounted for."""
    return ask(pair)


@pytest.mark.parametrize("first", [1, 9, 10], ids=["below", "at", "above"])
def test_ends_of_a_target_whose_database_was_made_anew_are_accounted_for(
    database, ask, old, other_pair, first
):
    assert follow(database, Target(old, first=9)) == []
    new = ask(other_pair)
    assert follow(database, Target(new, first=first)) == ["target-records-differ"]
    assert accounted(database) == [old, new]
    assert database.place("work").number == first


def test_what_a_database_that_was_put_back_tells_again_is_accounted_for_once(
    database, ask, old, other_pair
):
    lost = ask(other_pair)
    assert follow(database, Target(old, lost)) == []
    assert follow(database, Target(old)) == ["target-records-differ"]
    assert accounted(database) == [old, lost]
    assert follow(database, Target(old, lost)) == []
    assert accounted(database) == [old, lost]


def test_the_same_list_is_read_on_from_where_it_was_left(database, ask, old, other_pair):
    follow(database, Target(old))
    new = ask(other_pair)
    longer = Target(old, new)
    assert follow(database, longer) == []
    assert accounted(database) == [old, new]
    assert longer.asked == [0, 1, 2, 1, 2]


def test_what_another_process_read_meanwhile_is_not_forgotten(database, ask, old, other_pair):
    follow(database, Target(old))
    before, new = database.place("work"), ask(other_pair)
    follow(database, Target(old, new))
    database.read_from_first("work", before)
    assert database.place("work").request_id == new

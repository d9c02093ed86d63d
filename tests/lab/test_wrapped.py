"""Key store `wrapped` on real parts, from minting to the burn."""

import pytest

from lab.world import World
from tests.lab.offices import WrappedOffice


@pytest.fixture(scope="module")
def office(lane):
    with World() as world:
        made = WrappedOffice(world, lane)
        made.set_up(1)
        made.start()
        yield made


def test_a_traveller_connects_and_the_burn_takes_pair_and_batch(office):
    (pair,) = office.pairs()
    assert pair["key_store"] == "wrapped"
    assert office.keys_on(office.world.host) == set()
    assert office.keys_on(office.world.client) == {pair["key_id"]}
    assert [each["state"] for each in office.batches()] == ["in use"]
    done = office.carnet("connect", "--json")
    assert done.returncode == 0, done.stderr
    assert office.spent_pairs() == [pair["key_id"]]
    office.host_agent.wait_for_line(f'"key_id": "{pair["key_id"]}", "event": "key-destroyed"')
    assert [each["state"] for each in office.batches()] == ["destroyed"]
    assert office.host("keys", "--state", "owed").stdout == ""
    assert office.carnet("disconnect").returncode == 0

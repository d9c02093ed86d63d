"""AH and ESP as one, between two daemons, and what stands without IPsec.

A world and its daemons take longer to begin than most of this takes, so the parts share them.
"""

import pytest

from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from lab.network import ROUTED
from lab.world import World
from tests.guest.addresses import BY_VERSION
from tests.guest.gateways import connect, end, ends_of, spis
from tests.guest.halves import Listener
from tests.lab.test_strongswan import in_background

from tests.guest.halves_on_the_wire import *  # noqa: F403  isort: skip
from tests.guest.halves_alive import *  # noqa: F403  isort: skip
from tests.guest.halves_refused import *  # noqa: F403  isort: skip


@pytest.fixture(scope="module")
def world():
    with World(ROUTED) as made:
        yield made


@pytest.fixture(scope="module")
def listener(world):
    """Who hears what reaches the machine behind Target, and Target itself."""
    v4, v6 = BY_VERSION[4], BY_VERSION[6]
    found = {
        address: Listener(machine, address)
        for machine, address in (
            (world.server, v4.server),
            (world.target, v4.target),
            (world.target, v6.target),
        )
    }
    yield found
    for each in found.values():
        each.close()


def test_without_ipsec_the_ike_sa_tells_where_the_client_is_and_when_she_goes(client, target):
    ends, before = ends_of(Objective.NATIVE, Mode.TRANSPORT), spis(client)
    events = target.driver.watch()
    connect(client, target, ends)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.UP)
    (status,) = target.driver.status()
    assert (status.remote_address, status.child_suite) == (BY_VERSION[4].client, "")
    assert status.established
    assert spis(client) == before
    end(client, ends.name)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.DOWN)
    target.driver.close()
    end(target, ends.name)

"""AH and ESP as one, from its beginning to its end: what stays, and what it shares.

For test_two_halves, after halves_on_the_wire.
"""

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import bundle
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from tests.guest.addresses import BY_VERSION
from tests.guest.gateways import (
    VIRTUAL,
    connect,
    directions,
    end,
    end_at,
    ends_of,
    in_kernel,
    inside,
    ip,
    policies,
)
from tests.guest.halves import BOTH, say
from tests.lab.test_strongswan import in_background


@pytest.mark.parametrize("inner", [4, 6])
def test_the_end_of_a_tunnel_leaves_no_policy_and_no_route(client, target, inner):
    ends = ends_of(BOTH, Mode.TUNNEL, inner=inner)
    before = policies(client), policies(target), routes(client), routes(target)
    connect(client, target, ends)
    assert policies(client).count(f"priority {bundle.PRIORITY}") == 3
    assert f"src {VIRTUAL[inner]}" in routes(client)
    for gateway in (client, target):
        end(gateway, ends.name)
        assert gateway.left() == []
    assert (policies(client), policies(target), routes(client), routes(target)) == before


def routes(gateway) -> str:
    return ip(gateway, "route") + ip(gateway, "-6", "route")


def end_older(client, target, older, newer):
    """End it at both; what ties the newer one's halves together stays."""
    for gateway in (client, target):
        end(gateway, older.name)
        assert directions(gateway, newer.name) == {"in", "out", "fwd"}


def test_a_newer_tunnel_to_the_same_peer_keeps_what_it_shares_with_the_older(client, target):
    older, newer = ends_of(BOTH, Mode.TRANSPORT), ends_of(BOTH, Mode.TRANSPORT)
    connect(client, target, older)
    connect(client, target, newer)
    end_older(client, target, older, newer)
    for gateway in (client, target):
        with inside(gateway):
            assert gateway.driver.confirm(end_at(gateway, client, newer)).established
    for gateway in (client, target):
        end(gateway, newer.name)


def test_an_older_tunnel_to_the_same_peer_keeps_what_it_shares_with_the_newer(
    client, target, listener
):
    """Without policies the kernel would let it pass in clear, at either end."""
    older, newer = ends_of(BOTH, Mode.TRANSPORT), ends_of(BOTH, Mode.TRANSPORT)
    connect(client, target, older)
    before = policies(client), policies(target)
    connect(client, target, newer)
    for gateway in (client, target):
        end(gateway, newer.name)
    assert (policies(client), policies(target)) == before
    say(client, f"still-{older.name}", BY_VERSION[4].target)
    listener[BY_VERSION[4].target].wait_for(f"still-{older.name}")
    for gateway in (client, target):
        end(gateway, older.name)
    assert "proto ah" not in policies(client) + policies(target)


def test_what_the_daemon_does_with_policies_of_its_own_leaves_ours(client, target, listener):
    """It deletes by selector alone: an older ESP tunnel's end must not leave ours in clear."""
    older, newer = ends_of(Objective.ESP, Mode.TRANSPORT), ends_of(BOTH, Mode.TRANSPORT)
    connect(client, target, older)
    connect(client, target, newer)
    end_older(client, target, older, newer)
    say(client, f"still-{newer.name}", BY_VERSION[4].target)
    listener[BY_VERSION[4].target].wait_for(f"still-{newer.name}")
    for gateway in (client, target):
        end(gateway, newer.name)


@pytest.mark.parametrize(
    ("objective", "mode"),
    [(Objective.ESP, Mode.TUNNEL), (Objective.ESP, Mode.TRANSPORT), (BOTH, Mode.TUNNEL)],
)
def test_what_a_daemon_that_was_killed_leaves_goes_with_the_tunnel(client, target, objective, mode):
    """SAs with their keys, policies, routes and the address: the next daemon knows of none."""
    before = [in_kernel(gateway.machine) for gateway in (client, target)]
    ends = ends_of(objective, mode)
    connect(client, target, ends)
    for gateway, then in zip((client, target), before, strict=True):
        gateway.charon.kill()
        gateway.charon.start()
        assert in_kernel(gateway.machine) != then
        end(gateway, ends.name)
    assert [in_kernel(gateway.machine) for gateway in (client, target)] == before


def test_policies_outlive_the_daemon_and_are_swept(client, target):
    ends = ends_of(BOTH, Mode.TUNNEL)
    connect(client, target, ends)
    client.charon.kill()
    assert f"priority {bundle.PRIORITY}" in policies(client)
    client.charon.start()
    with inside(client):
        client.driver.sweep(lambda: frozenset({ends.name}))
        assert directions(client, ends.name)
        client.driver.sweep(frozenset)
    assert f"priority {bundle.PRIORITY}" not in policies(client)
    end(target, ends.name)


def test_a_half_that_ends_ends_the_tunnel(client, target):
    ends = ends_of(BOTH, Mode.TRANSPORT)
    events = (each for each in client.driver.watch() if each.change is not Change.ANEW)
    connect(client, target, ends)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.UP)
    with target.session() as session:
        list(session.terminate({"ike": f"{ends.name}/ah"}))
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.DOWN)
    client.driver.close()
    with inside(client), pytest.raises(IPsecError, match="its AH half is not established"):
        client.driver.confirm(ends.client)
    assert client.left() == []
    end(target, ends.name)

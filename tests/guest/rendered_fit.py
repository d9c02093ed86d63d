"""What is rendered for racoon and Windows, and what Target offers: for test_pairings, and first."""

import pytest

from carnet.errors import IPsecError
from carnet.ipsec.libreswan_conf import configuration
from carnet.ipsec.libreswan_tools import Tools
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from tests.guest.addresses import BY_VERSION
from tests.guest.bundles import NO_PROPOSAL_CHOSEN, BundlePeer, Protocol
from tests.guest.daemons import keyed
from tests.guest.gateways import inside
from tests.guest.rendered_peers import as_racoon, as_windows, fits, own_address, protocols_of
from tests.guest.rendered_peers import ends as rendered_ends
from tests.lab.conftest import Gateway

__all__ = [
    "own_address",
    "test_a_bundle_in_one_quick_mode_is_refused_and_esp_alone_is_had",
    "test_libreswan_refuses_racoon_s_bundle_whoever_says_so",
    "test_racoon_s_bundle_is_esp_alone_for_strongswan_which_is_told_none",
    "test_what_is_rendered_and_what_libreswan_offers_fit_together",
    "test_what_is_rendered_and_what_strongswan_offers_fit_together",
]


def bundle(mode):
    """Both ends of a tunnel with AH and ESP, as racoon has them in one Quick Mode."""
    return rendered_ends(Objective.AH_ESP, mode)


def test_libreswan_refuses_racoon_s_bundle_whoever_says_so(seats, both):
    ends = rendered_ends(Objective.ESP, Mode.TRANSPORT)
    conf, tools = configuration(ends.target), Tools(seats[1].daemon.socket)
    tools.make_directory()
    with pytest.raises(IPsecError, match="Libreswan refuses the tunnel"):
        tools.add(ends.name, conf.replace("phase2=esp", "phase2=ah+esp"))
    # That it is the bundle, and nothing else of it.
    tools.add(ends.name, conf)
    with pytest.raises(IPsecError, match="AH and ESP"):
        both[1].install(bundle(Mode.TRANSPORT).target)
    both[1].down(ends.name)


@pytest.mark.parametrize("peer", [as_racoon, as_windows], ids=["racoon", "windows"])
def test_what_is_rendered_and_what_libreswan_offers_fit_together(world, seats, own_address, peer):
    gateways = take(seats, "strongswan", "libreswan")
    fits(world, *gateways, peer, rendered_ends(Objective.ESP, Mode.TUNNEL))


@pytest.mark.parametrize("daemon", ["libreswan", "strongswan"])
def test_a_bundle_in_one_quick_mode_is_refused_and_esp_alone_is_had(world, seats, daemon):
    """As racoon would ask for it, of a Target that offers ESP."""
    (_, target), v4 = take(seats, "strongswan", daemon), BY_VERSION[4]
    both = rendered_ends(Objective.ESP, Mode.TRANSPORT)
    with inside(target):
        target.driver.install(both.target)
    with BundlePeer(world.client.network(), v4.client, v4.target, both.client.psk) as peer:
        peer.main_mode()
        assert peer.quick_mode([Protocol.AH, Protocol.ESP]) == NO_PROPOSAL_CHOSEN
        assert keyed(world.target) == 0
        assert peer.quick_mode([Protocol.ESP]) is None
    with inside(target):
        target.driver.down(both.name)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("objective", [Objective.ESP, Objective.AH])
@pytest.mark.parametrize("peer", [as_racoon, as_windows], ids=["racoon", "windows"])
def test_what_is_rendered_and_what_strongswan_offers_fit_together(
    world, seats, own_address, peer, objective, mode
):
    gateways = take(seats, "strongswan", "strongswan")
    fits(world, *gateways, peer, rendered_ends(objective, mode))


@pytest.mark.parametrize("mode", Mode)
def test_racoon_s_bundle_is_esp_alone_for_strongswan_which_is_told_none(seats, own_address, mode):
    """It takes two protocols for alternatives; so no such tunnel is offered."""
    client, target = take(seats, "strongswan", "strongswan")
    both = bundle(mode)
    peer = as_racoon(both.client)
    assert list(peer.suites) == ["esp", "ah"]
    assert protocols_of(client, target, both.name, peer) == ["ESP"]
    for gateway, spec in ((client, both.client), (target, both.target)):
        with pytest.raises(IPsecError, match=r"ah\+esp with IKEv1"):
            gateway.driver.install(spec)


def take(seats, *names):
    """Have these daemons run, Client's and Target's; return where, and the ways to them."""
    drivers = [seat.take(name) for seat, name in zip(seats, names, strict=True)]
    return [
        Gateway(seat.machine, seat.daemon, driver)
        for seat, driver in zip(seats, drivers, strict=True)
    ]

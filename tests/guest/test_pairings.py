"""Each implementation at Client with each at Target, through the drivers alone."""

import time
from dataclasses import replace

import pytest

from carnet.errors import IKERefusedError, IPsecError, NothingLeftError
from carnet.ipsec.drivers import Choice, DriverName, find_driver
from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.strongswan_messages import connections
from carnet.ipsec.too_many import MOST_AT_ONCE
from carnet.ipsec.vici_link import open_session
from carnet.objectives import Objective
from lab.capture import Capture
from lab.charon import VICI
from lab.network import ROUTED
from lab.pluto import SOCKET as PLUTO
from lab.waiting import wait_until
from lab.world import World
from tests.guest.addresses import BY_VERSION
from tests.guest.daemons import Seat, keyed
from tests.guest.gateways import ends_of
from tests.guest.pairings import PAIRINGS, Pairing
from tests.guest.traffic import fetch, serving, watched
from tests.lab.conftest import Ends

from tests.guest.rendered_fit import *  # noqa: F403  isort: skip


@pytest.fixture(scope="module")
def world():
    with World(ROUTED) as made, serving(made.server, made.target):
        yield made


@pytest.fixture(scope="module")
def seats(world):
    made = Seat(world.client), Seat(world.target)
    yield made
    for seat in made:
        seat.leave()


@pytest.fixture(scope="module")
def capture(world):
    with Capture(world.router) as made:
        yield made


@pytest.mark.parametrize("pairing", PAIRINGS, ids=str)
def test_what_was_agreed_comes_up_and_goes(world, seats, capture, pairing, record_property):
    here, there = seats[0].take(pairing.client), seats[1].take(pairing.target)
    assert chosen_at(seats[0]) == pairing.client
    ends = pairing.ends
    with world.target.network():
        there.install(ends.target)
    with world.client.network(), watched(capture) as seen:
        here.install(ends.client)
        ours = here.up(ends.client)
        here.forget_secrets(ends.name)
        assert fetch(world.client, pairing.goal)
    with world.target.network():
        theirs = there.confirm(ends.target)
        there.forget_secrets(ends.name)
        assert [each.name for each in there.status()] == [ends.name]
    addresses = BY_VERSION[pairing.version]
    assert seen.kinds(addresses.client, addresses.target) == {pairing.expected}
    if pairing.ike == 2:
        assert seen.dividing() == {addresses.client, addresses.target}
    assert (ours.role, theirs.role) == (Role.CLIENT, Role.TARGET)
    for status in (ours, theirs):
        assert status.established
        assert status.ppk is pairing.ppk
        assert status.virtual_address == ends.client.virtual_address
        assert not status.encapsulated
    assert seats[0].renewed(ends.name) is pairing.ppk
    assert (ours.ike_suite, ours.child_suite) == (theirs.ike_suite, theirs.child_suite)
    assert (theirs.local_address, theirs.remote_address) == (addresses.target, addresses.client)
    end(world, here, there, ends)
    record_property("pairings", pairing.row)


@pytest.fixture
def mixed(seats):
    """strongSwan at the Client, and Libreswan at Target."""
    yield seats[0].take("strongswan"), seats[1].take("libreswan")
    seats[0].leave()


def test_who_negotiates_again_and_again_with_libreswan_loses_the_tunnel(world, seats, mixed):
    """pluto itself lets her have as many SAs as she likes."""
    ends = fresh()
    connect(world, mixed, ends)
    ((name, connection),) = connections(ends.client)[0].items()
    with open_session(seats[0].daemon.vici) as session:
        for number in range(MOST_AT_ONCE):
            child = {f"further-{number}": connection["children"][name]}
            # Another than those that are there, to the daemon here.
            further = {"unique": "never", "rekey_time": f"{9000 + number}s", "children": child}
            session.load_conn({f"further-{number}": connection | further})
            list(session.initiate({"ike": f"further-{number}", "child": f"further-{number}"}))
    with world.target.network():
        with pytest.raises(IPsecError, match=f"has {MOST_AT_ONCE + 1} IKE_SAs at once"):
            mixed[1].confirm(ends.target)
        assert (mixed[1].status(), mixed[1].installed()) == ([], frozenset())
    assert keyed(world.target) == 0


@pytest.fixture
def both(seats):
    """Libreswan at both ends."""
    return seats[0].take("libreswan"), seats[1].take("libreswan")


def fresh(address="10.99.0.7"):
    """Both ends of a tunnel, with fresh keys and that virtual address."""
    made = ends_of(Objective.ESP, Mode.TUNNEL)
    return Ends(*(replace(each, virtual_address=address) for each in (made.client, made.target)))


def connect(world, both, ends):
    with world.target.network():
        both[1].install(ends.target)
    with world.client.network():
        both[0].install(ends.client)
        both[0].up(ends.client)


def addresses(machine):
    return machine.run(["ip", "-o", "address"]).stdout + machine.run(["ip", "route"]).stdout


@pytest.mark.parametrize("key", ["psk", "ppk"])
def test_with_another_key_nothing_comes_up_and_nothing_stays(world, both, key):
    ends = fresh()
    other = Ends(ends.client, replace(ends.target, **{key: b"?" * 32}))
    with pytest.raises(IKERefusedError, match="AUTHENTICATION_FAILED"):
        connect(world, both, other)
    end(world, *both, ends)


def test_a_target_less_than_agreed_ends_it_for_both(world, both):
    made = fresh()
    stricter, agreed = made.target, {"esp_proposals": ("chacha20poly1305-x25519",)}
    ends = Ends(replace(made.client, **agreed), replace(made.target, **agreed))
    connect(world, both, ends)
    with (
        world.target.network(),
        pytest.raises(IPsecError, match="its ESP algorithms were not proposed"),
    ):
        both[1].confirm(stricter)
    assert (both[1].status(), both[1].installed()) == ([], frozenset())
    wait_until(lambda: both[0].status() == [], "the Client to hear of the end")
    end(world, *both, ends)


def test_a_newer_tunnel_keeps_the_network_when_the_older_ends(world, both):
    older, newer = fresh("10.99.0.7"), fresh("10.99.0.8")
    connect(world, both, older)
    connect(world, both, newer)
    with world.target.network():
        assert {each.name for each in both[1].status()} == {older.name, newer.name}
    for machine, driver in zip((world.client, world.target), both, strict=True):
        with machine.network():
            driver.down(older.name)
    assert "10.99.0.7" not in addresses(world.client)
    assert fetch(world.client, BY_VERSION[4].server)
    end(world, *both, newer)
    assert "10.99.0.8" not in addresses(world.client)


def test_libreswan_has_one_session_with_ikev1_at_a_time(world, both):
    """Of two, each could ask for the other's address and network, and would be given them."""
    older, newer = (old_fresh(address) for address in ("10.99.0.7", "10.99.0.8"))
    with world.target.network():
        both[1].install(older.target)
        refuses(both[1], newer)
    connect(world, both, older)
    with world.target.network():
        both[1].forget_secrets(older.name)
        refuses(both[1], newer)
        assert both[1].confirm(older.target).established
    end(world, *both, older)
    connect(world, both, newer)
    end(world, *both, newer)


def refuses(driver, ends):
    before = driver.installed()
    with pytest.raises(IPsecError, match=r"awaited with IKEv1.*until its session is over"):
        driver.install(ends.target)
    assert driver.installed() == before


def old_fresh(address):
    """The same with IKEv1."""
    pairing = Pairing("libreswan", "libreswan", 1, Objective.ESP, Mode.TUNNEL, False)
    made = pairing.ends
    return Ends(*(replace(each, virtual_address=address) for each in (made.client, made.target)))


def test_what_a_daemon_that_was_killed_leaves_is_swept(world, both, seats):
    ends = fresh()
    connect(world, both, ends)
    # The kernel tells the age of an SA in whole seconds.
    last = int(time.time())
    wait_until(lambda: int(time.time()) > last, "the next second")
    seats[0].daemon.kill()
    assert "10.99.0.7" in addresses(world.client)
    with pytest.raises(IPsecError, match="does not answer"):
        both[0].status()
    seats[0].daemon.start()
    assert keyed(world.client) == 2
    with pytest.raises(IKERefusedError, match=r"no pre-shared key.*run `carnet connect`"):
        both[0].resume(ends.name)
    newer = fresh("10.99.0.8")
    connect(world, both, newer)
    with world.client.network():
        assert both[0].sweep(lambda: frozenset({newer.name})) == [ends.name]
    assert "10.99.0.7" not in addresses(world.client)
    assert keyed(world.client) == 2
    assert fetch(world.client, BY_VERSION[4].server)
    with world.target.network():
        both[1].down(ends.name)
    seats[0].daemon.kill()
    with world.client.network(), pytest.raises(NothingLeftError, match="start it"):
        both[0].down(newer.name)
    assert keyed(world.client) == 0
    assert "10.99.0.8" not in addresses(world.client)
    assert "reqid" not in world.client.run(["ip", "xfrm", "policy"]).stdout
    seats[0].daemon.start()
    end(world, *both, newer)


def chosen_at(seat):
    """Which driver a machine's commands find by themselves."""
    sockets = {
        DriverName.STRONGSWAN: seat.machine.path(VICI),
        DriverName.LIBRESWAN: seat.machine.path(PLUTO),
    }
    return find_driver(Choice(None, sockets)).name


def end(world, here, there, ends):
    """Both forget it whole."""
    for machine, driver in ((world.client, here), (world.target, there)):
        with machine.network():
            driver.down(ends.name)
            assert driver.installed() == frozenset()
            assert driver.status() == []


@pytest.mark.parametrize(("daemon", "ike"), [("libreswan", 2), ("strongswan", 1)])
def test_a_network_that_target_is_in_leads_there_too_and_the_tunnel_past_it(
    world, seats, capture, daemon, ike
):
    """Where the routes are ours; afterwards all is as it was."""
    both, v4 = [seat.take(daemon) for seat in seats], BY_VERSION[4]
    made = Pairing(daemon, daemon, ike, Objective.ESP, Mode.TUNNEL, False).ends
    # Not the address that a killed daemon's policies may still be for.
    everything, inside = ("0.0.0.0/0",), {"virtual_address": "10.99.0.9"}
    ends = Ends(
        replace(made.client, remote_networks=everything, **inside),
        replace(made.target, local_networks=everything, **inside),
    )
    before = addresses(world.client)
    connect(world, both, ends)
    with watched(capture) as seen:
        assert fetch(world.client, v4.server)
        assert fetch(world.client, v4.target)
    assert seen.kinds(v4.client, v4.target) == {"ESP"}
    end(world, *both, ends)
    assert addresses(world.client) == before

"""Libreswan at Target, at both ends, at the Client: for test_connect, after ikev1.

The office serves Clients that have IKEv1 alone by then.
"""

import json
from contextlib import contextmanager

import pytest

from carnet.ipsec.libreswan import Libreswan
from carnet.ipsec.libreswan_reports import tunnels
from carnet.ipsec.libreswan_tools import DEFAULT_SOCKET, Tools
from lab.residue import machine_state
from tests.guest.addresses import BY_VERSION
from tests.guest.cases import Case, check
from tests.guest.gateways import in_kernel
from tests.guest.ikev1 import ALONE, NETWORK, carried, ike_versions
from tests.guest.traffic import fetch

SECRETS = "/run/pluto/carnet"


@pytest.fixture(scope="module")
def targets_pluto(allowing):
    return allowing.have_libreswan(allowing.world.target)


@pytest.fixture(scope="module")
def clients_pluto(allowing, targets_pluto):
    return allowing.have_libreswan(allowing.world.client)


@pytest.fixture(scope="module")
def targets_charon(allowing, targets_pluto, clients_pluto):
    allowing.target_agent.stop()
    targets_pluto.stop()
    allowing.target_charon.start()
    allowing.target_agent = allowing.serve_target()


@pytest.fixture
def cleared(allowing):
    """The office, of which the next test has nothing left, should this one fail."""
    yield allowing
    allowing.clear()


@pytest.fixture
def at_target(targets_pluto, cleared):
    """Libreswan at Target; with it the office."""
    return targets_pluto, cleared


@pytest.fixture
def at_both(clients_pluto, cleared):
    """Libreswan at both ends: the Client's, and the office."""
    return clients_pluto, cleared


@pytest.fixture
def at_client(clients_pluto, targets_charon, cleared):
    """The Client's, and the office, where Target has strongSwan again."""
    return clients_pluto, cleared


def test_strongswan_has_its_tunnel_with_libreswan(at_target):
    pluto, office = at_target
    with nothing_is_left(office.client_charon, pluto):
        office.end(check(office, Case("esp", "tunnel", 4, 4)))


@contextmanager
def nothing_is_left(*daemons):
    """Compare the machines of these daemons, and what they know, before and after."""
    before = [machine_state(each) for each in daemons]
    yield
    assert [machine_state(each) for each in daemons] == before


def test_a_strongswan_with_ikev1_alone_gets_it_from_libreswan(at_target):
    pluto, office = at_target
    with nothing_is_left(office.client_charon, pluto):
        facts = carried(office, "esp", NETWORK, "ESP")
        (version,) = ike_versions(office.client_charon)
        assert (version, uses_ikev1(pluto, facts)) == ("1", True)
        assert list(office.world.target.path(SECRETS).glob("*.secrets")) == []
        office.end(facts)


def test_libreswan_is_found_by_itself_and_carries_tunnels(at_both, targets_pluto):
    (pluto, office), v4 = at_both, BY_VERSION[4]
    with nothing_is_left(pluto, targets_pluto):
        with office.watched() as seen:
            facts = office.connect("--network", v4.network)
            assert fetch(office.world.client, v4.server)
        assert seen.kinds(v4.client, v4.target) == {"ESP"}
        (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
        assert (tunnel["live"]["role"], tunnel["live"]["ppk"]) == ("client", True)
        kept = [m.path(SECRETS) for m in (office.world.client, office.world.target)]
        assert [path.name for each in kept for path in each.glob("*.secrets")] == []
        office.end(facts)


def test_what_libreswan_carried_goes_without_it_and_by_no_other_driver(at_both):
    """Of two that are installed neither answers, and the record says whose it is."""
    (pluto, office), v4 = at_both, BY_VERSION[4]
    client = office.world.client
    before = in_kernel(client).splitlines()
    facts = office.connect("--network", v4.network)
    pluto.kill()
    assert fetch(client, v4.server)
    said = office.carnet("disconnect", "--release")
    assert "Libreswan daemon does not answer" in said.stderr
    assert [line for line in in_kernel(client).splitlines() if line not in before] == []
    pluto.start()
    with client.network():
        Libreswan(client.path(str(DEFAULT_SOCKET))).down(facts["name"])
    office.target("tunnels", "end", facts["name"].removeprefix("carnet-"))


def test_libreswan_has_ah_with_target_alone(at_both):
    _, office = at_both
    office.end(check(office, Case("ah", "transport", 4, 4)))


def test_a_libreswan_with_ikev1_alone_gets_it_from_libreswan(at_both, targets_pluto):
    with nothing_is_left(at_both[0], targets_pluto):
        check_ikev1(*at_both, "esp", ALONE, "ESP")


def test_a_tunnel_has_the_address_that_target_gives_again_once_it_began_anew(at_client):
    """The older one, which ended with Target, takes neither it nor its routes."""
    (_, office), v4 = at_client, BY_VERSION[4]
    older = office.connect("--network", v4.network)
    office.target_agent.stop()
    office.target_charon.stop()
    office.target_charon.start()
    office.target_agent = office.serve_target()
    newer = office.connect("--network", v4.network)
    assert newer["virtual_address"] == older["virtual_address"]
    assert fetch(office.world.client, v4.server)
    office.end(newer)


def test_a_libreswan_with_ikev1_alone_gets_it_from_strongswan(at_client):
    with nothing_is_left(at_client[0], at_client[1].target_charon):
        check_ikev1(*at_client, "ah", NETWORK, "AH IPv4 TCP")


def check_ikev1(pluto, office, objective, where, expected):
    facts = carried(office, objective, where, expected)
    assert uses_ikev1(pluto, facts)
    assert list(office.world.client.path(SECRETS).glob("*.secrets")) == []
    office.end(facts)


def uses_ikev1(pluto, facts):
    said = Tools(pluto.socket).whack("--status")
    return "IKEv1" in tunnels(said)[facts["name"]].policy

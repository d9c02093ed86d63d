"""What Target grants is what was asked for, or nothing comes up."""

from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace

from carnet.errors import IPsecError
from carnet.ipsec.surroundings import Surroundings
from carnet.wire.messages import ClientDriver
from tests.unit.examples import make_request, make_tunneling_info
from token_client.granted import believable, refuse_another, refuse_what_is_here

NETWORKS = ("10.20.0.0/16",)
GRANTED = make_tunneling_info(networks=NETWORKS)


def with_ike(*versions):
    """The request of a machine whose drivers have these versions of IKE, each."""
    drivers = tuple(
        ClientDriver(
            name=f"driver-{at}", ike_versions=each, objectives=(3,), modes=("tunnel",), ppk=False
        )
        for at, each in enumerate(versions)
    )
    return make_request(networks=NETWORKS, drivers=drivers)


@pytest.mark.parametrize(
    ("drivers", "granted"), [([(2, 1)], 2), ([(2,)], 2), ([(1,)], 1), ([(1,)], 2)], ids=str
)
def test_what_was_asked_for_is_taken(drivers, granted):
    refuse_another(replace(GRANTED, ike_version=granted), with_ike(*drivers))


@pytest.mark.parametrize("drivers", [[(2, 1)], [(2,)], [(1,), (2, 1)]], ids=str)
def test_an_older_ike_than_this_machine_has_is_refused(drivers):
    with pytest.raises(IPsecError, match="granted an older IKE than this machine has"):
        refuse_another(replace(GRANTED, ike_version=1), with_ike(*drivers))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"objective_id": 2}, "another objective"),
        ({"networks": ("10.0.0.0/8",)}, "other networks"),
        ({"networks": ()}, "other networks"),
        ({"mode": "transport"}, "another mode"),
    ],
    ids=str,
)
def test_another_thing_than_was_asked_for_is_refused(changes, what):
    with pytest.raises(IPsecError, match=f"granted {what}.*nothing is up"):
        refuse_another(replace(GRANTED, **changes), with_ike((2, 1)))


@pytest.mark.parametrize(
    ("behind", "lifetime", "believed"),
    [(0, None, True), (40_000, 28_800, False), (20_000, 28_800, True), (-20_000, None, True),
     (-366 * 86400, None, False), (-20_000, 28_800, False), (2**38, None, False)],
)  # fmt: skip
def test_a_date_that_targets_word_contradicts_says_nothing_of_the_clock(behind, lifetime, believed):
    now = 1_000_000_000
    found = believable(behind, now + 28_800, lifetime, now)
    assert found == (behind if believed else 0)


AROUND = Surroundings(
    on_link=(ip_network("192.168.77.0/24"),),
    beyond=(ip_network("10.0.0.0/8"),),
    gateways=frozenset({ip_address("192.0.2.1")}),
    name_servers=frozenset({ip_address("9.9.9.9")}),
)


def test_an_address_that_means_nothing_here_is_taken():
    """Also where a router knows a way to it: a network at work may be of any size."""
    granted = replace(GRANTED, virtual_address="10.99.0.2")
    refuse_what_is_here(granted, ("203.0.113.2",), lambda _: AROUND)
    refuse_what_is_here(replace(GRANTED, virtual_address=None), (), lambda _: AROUND)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("203.0.113.2", "a Host's"),
        ("198.51.100.2", "Target's own"),
        ("192.0.2.1", "the gateway"),
        ("9.9.9.9", "a name server"),
        ("192.168.77.9", "in 192.168.77.0/24, a network that this machine is in"),
        ("127.0.0.2", "no address of one machine"),
    ],
)
def test_an_address_by_which_this_machine_reaches_something_is_refused(address, why):
    granted = replace(GRANTED, virtual_address=address, target_addresses=("198.51.100.2",))
    with pytest.raises(IPsecError, match=why):
        refuse_what_is_here(granted, ("203.0.113.2",), lambda _: AROUND)

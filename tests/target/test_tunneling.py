"""From the terms to Tunneling Info; and the pool its addresses come from."""

import pytest

from carnet.ipsec.spec import Role
from carnet.objectives import Objective
from carnet.tunnel import tunnel_spec
from carnet.wire.session_key import SessionSecrets
from target_agent.access import Terms
from target_agent.addresses import AddressPool
from target_agent.tunneling import tunneling_info

NOW = 1_800_000_000


def info_for(config, ppk=True):
    terms = Terms(
        objective=Objective.ESP, networks=("10.20.0.0/16",), lifetime=3600, ppk=ppk, entries=()
    )
    return tunneling_info(terms, config.tunnels, "10.99.0.1", NOW)


def test_what_was_granted_is_what_the_client_is_told(config):
    info = info_for(config)
    assert (info.networks, info.virtual_address) == (("10.20.0.0/16",), "10.99.0.1")
    assert (info.expires, info.initiate_within) == (NOW + 3600, 120)
    assert info.target_addresses == config.tunnels.addresses


def test_identities_are_of_one_session(config):
    names = [
        name
        for info in (info_for(config), info_for(config))
        for name in (info.client_identity, info.target_identity, info.ppk_id)
    ]
    assert len(set(names)) == 6


@pytest.mark.parametrize("ppk", [True, False])
def test_both_ends_can_be_made_of_it(config, ppk):
    info = info_for(config, ppk)
    secrets = SessionSecrets(psk=bytes(32), ppk=bytes(32))
    ends = [tunnel_spec(role, bytes(16), info, secrets, 3600) for role in Role]
    assert [end.ppk is not None for end in ends] == [ppk, ppk]


@pytest.mark.parametrize(
    ("network", "addresses"),
    [
        ("10.99.0.0/30", ["10.99.0.1", "10.99.0.2"]),
        ("10.99.0.0/31", ["10.99.0.0", "10.99.0.1"]),
        ("10.99.0.9/32", ["10.99.0.9"]),
        ("2001:db8::/126", ["2001:db8::1", "2001:db8::2"]),
    ],
)
def test_a_pool_hands_out_each_host_address_once(network, addresses):
    pool = AddressPool(network)
    assert [pool.take() for _ in addresses] == addresses
    assert pool.take() is None


def test_what_is_given_back_is_handed_out_last():
    pool = AddressPool("10.99.0.0/29", taken=["10.99.0.2", "10.88.0.1"])
    first = pool.take()
    pool.give_back(first)
    later = [pool.take() for _ in range(5)]
    assert (first, later[-1]) == ("10.99.0.1", "10.99.0.1")
    assert "10.99.0.2" not in later
    assert pool.take() is None


def test_a_vast_pool_costs_nothing():
    assert AddressPool("2001:db8::/64").take() == "2001:db8::1"

"""From the terms to Tunneling Info; and the pool its addresses come from."""

import pytest

from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.strongswan_algorithms import unknown_words, weak_words
from carnet.objectives import Objective
from carnet.tunnel import tunnel_spec
from carnet.wire.session_key import SessionSecrets
from target_agent.access import Terms
from target_agent.addresses import AddressPool, AddressPools
from target_agent.proposals import IKEV1_PROFILES, PROFILES, Profile
from target_agent.tunneling import tunneling_info
from tests.target.conftest import changed

KEY = bytes(32)
NOW = 1_800_000_000


def info_for(config, ppk=True, objective=Objective.ESP, ike_version=2):
    terms = Terms(
        objective=objective,
        mode=Mode.TUNNEL,
        target_addresses=config.tunnels.addresses,
        networks=("10.20.0.0/16",),
        lifetime=3600,
        ike_version=ike_version,
        ppk=ppk,
        entries=(),
    )
    return tunneling_info(terms, config.tunnels, "10.99.0.1", NOW)


def test_what_was_granted_is_what_the_client_is_told(config):
    info = info_for(config)
    assert (info.networks, info.virtual_address) == (("10.20.0.0/16",), "10.99.0.1")
    assert (info.expires, info.initiate_within) == (NOW + 3600, 120)
    assert info.target_addresses == config.tunnels.addresses


@pytest.mark.parametrize(
    ("objective", "esp", "ah"),
    [
        (Objective.NATIVE, False, False),
        (Objective.AH, False, True),
        (Objective.ESP, True, False),
        (Objective.AH_ESP, True, True),
    ],
)
def test_only_what_the_objective_names_is_proposed(config, objective, esp, ah):
    info = info_for(config, objective=objective)
    assert (bool(info.esp_proposals), bool(info.ah_proposals)) == (esp, ah)


def test_the_second_connection_has_identities_and_keys_of_its_own(config):
    info = info_for(config, objective=Objective.AH_ESP)
    keys = SessionSecrets(psk=b"1" * 32, ppk=b"2" * 32, ah_psk=b"3" * 32, ah_ppk=b"4" * 32)
    client, target = (tunnel_spec(role, bytes(16), info, keys, 3600) for role in Role)
    assert client.ah_half.local_identity == target.ah_half.remote_identity
    assert client.ah_half.local_identity == f"ah-{client.local_identity}"
    assert (client.ah_half.psk, client.ah_half.ppk) == (b"3" * 32, b"4" * 32)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_of_words_that_both_ends_can_compare(config, profile):
    suites = PROFILES[profile]
    words = suites.ike + suites.esp + suites.ah
    assert unknown_words(words) == []
    assert bool(weak_words(words)) is (profile is Profile.PAPER)
    allowed = changed(config, profile=profile, insecure_benchmark_suites=True)
    assert info_for(allowed).esp_proposals == suites.esp


@pytest.mark.parametrize("profile", Profile)
def test_every_profile_has_words_for_ikev1_which_has_no_aead_for_itself(config, profile):
    suites = IKEV1_PROFILES[profile]
    words = suites.ike + suites.esp + suites.ah
    assert unknown_words(words) == []
    assert bool(weak_words(words)) is (profile is Profile.PAPER)
    assert not any("gcm" in word or "poly" in word or "prf" in word for word in suites.ike)
    allowed = changed(config, profile=profile, insecure_benchmark_suites=True)
    info = info_for(allowed, ppk=False, ike_version=1)
    assert (info.ike_version, info.ike_proposals) == (1, suites.ike)


@pytest.mark.parametrize("change", [{"require_ppk": True}, {"ike_proposals": ("aes256-sha256",)}])
def test_ikev1_is_not_allowed_beside_what_it_cannot_keep(config, change):
    settings = {"allow_ikev1": True, "require_ppk": False}
    assert changed(config, **settings).tunnels.allow_ikev1
    with pytest.raises(ValueError, match="allow_ikev1"):
        changed(config, **(settings | change))


def test_proposals_that_are_named_stand_in_the_place_of_the_profiles(config):
    named = changed(config, profile=Profile.CNSA, esp_proposals=("chacha20poly1305",))
    assert info_for(named).esp_proposals == ("chacha20poly1305",)
    assert info_for(named).ike_proposals == ("aes256gcm16-prfsha384-ecp384",)


def test_each_ip_version_has_a_pool_of_its_own():
    pools = AddressPools(["10.99.0.0/30", "fd99::/64"], taken=["fd99::1"])
    assert pools.versions == {4, 6}
    assert pools.take_for(["10.20.0.0/16"]) == "10.99.0.1"
    assert pools.take_for(["fd20::/64"]) == "fd99::2"
    pools.give_back("10.99.0.1")
    pools.give_back(None)


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
    secrets = SessionSecrets(psk=KEY, ppk=KEY, ah_psk=KEY, ah_ppk=KEY)
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

"""What racoon would be told, parsed with a grammar after its manual pages."""

from dataclasses import replace

import pytest
from lark.exceptions import UnexpectedInput

from carnet.errors import IPsecError
from carnet.ipsec.example import example_spec
from carnet.ipsec.racoon import Racoon
from carnet.ipsec.racoon_files import files, removal
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from target_agent.proposals import IKEV1_PROFILES, Profile
from tests.unit.racoon_grammar import parse_conf, parse_setkey, words

HERE = "192.0.2.77"


def spec_of(objective=Objective.ESP, mode=Mode.TUNNEL, networks=(), **changes):
    return replace(example_spec(objective, mode, networks, ike_version=1, ppk=False), **changes)


def files_of(*options, **changes):
    return files(spec_of(*options, **changes), HERE, "0x00")


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("objective", [Objective.AH, Objective.ESP, Objective.AH_ESP])
@pytest.mark.parametrize("networks", [(), ("2001:db8:7::/48",)], ids=["IPv4", "IPv6"])
def test_every_tunnel_is_of_the_documented_syntax(objective, mode, networks):
    spec = spec_of(objective, mode, networks)
    made = files(spec, HERE, f"0x{spec.psk.hex()}")
    parse_conf(made.racoon_conf)
    begun, ended = parse_setkey(made.setkey), parse_setkey(removal(spec, HERE))
    selectors = [list(tree.find_data("selector")) for tree in (begun, ended)]
    assert selectors[0] == selectors[1]


@pytest.mark.parametrize("wrong", ["exchange_mode main", "authentication_method psk;", "pfs 14;"])
def test_the_grammar_refuses_what_racoon_would(wrong):
    conf = files_of().racoon_conf
    with pytest.raises(UnexpectedInput):
        parse_conf(conf.replace("exchange_mode main;", wrong))


def test_each_proposal_that_racoon_can_do_is_made_in_the_order_of_target():
    proposed = IKEV1_PROFILES[Profile.MODERN]
    conf = parse_conf(files_of(ike_proposals=proposed.ike).racoon_conf)
    made = [words(each, "group") for each in conf.find_data("proposal")]
    assert made == [["15"], ["14"]]
    (sainfo,) = parse_conf(files_of(esp_proposals=proposed.esp).racoon_conf).find_data("sainfo")
    assert words(sainfo, "group") == ["15"]
    assert words(sainfo, "encryption") == ["aes 256"]
    assert words(sainfo, "integrity") == ["hmac_sha256"]


@pytest.mark.parametrize(
    ("mode", "out"),
    [
        (Mode.TRANSPORT, ["esp transport require", "ah transport require"]),
        (Mode.TUNNEL, [f"esp tunnel {HERE} 192.0.2.1 require", "ah transport require"]),
    ],
)
def test_ah_and_esp_are_one_bundle_esp_inside(mode, out):
    (added, _) = parse_setkey(files_of(Objective.AH_ESP, mode).setkey).find_data("add")
    rules = [" ".join(filter(None, rule.children)) for rule in added.find_data("rule")]
    assert rules == out


def test_the_key_is_found_by_targets_address_and_hidden_in_a_dry_run():
    spec = spec_of(psk=b"k" * 32)
    assert files(spec, HERE, f"0x{spec.psk.hex()}").psk_txt == f"192.0.2.1 0x{'6b' * 32}\n"
    shown = Racoon().render(spec)
    assert "192.0.2.1 (hidden)" in shown
    assert "6b6b" not in shown


def test_the_ike_sa_lives_as_long_as_the_session():
    (remote,) = parse_conf(files_of(lifetime=7200).racoon_conf).find_data("remote")
    assert words(remote, "lifetime") == ["7200", "sec"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ike_version": 2}, "IKEv2 with a pre-shared key"),
        ({"remote_networks": ("10.0.0.0/8", "192.0.2.0/24")}, "2 networks"),
        ({"ike_proposals": ("aes256-sha384-ecp384",)}, "any of the proposed IKE algorithms"),
        ({"esp_proposals": ("aes256gcm16-ecp384",)}, "any of the proposed ESP algorithms"),
        ({"esp_proposals": ("3des-md5",)}, "the weak algorithms 3des, md5"),
        ({"remote_addresses": ()}, "knows no Target"),
    ],
)
def test_what_racoon_does_not_carry_is_refused(changes, said):
    with pytest.raises(IPsecError, match=said):
        files_of(**changes)


def test_it_drives_nothing():
    with pytest.raises(IPsecError, match="--dry-run --driver racoon"):
        Racoon().install(spec_of())

"""The strongSwan driver's pure parts: what it says, and how it judges what it hears."""

import re
from dataclasses import replace

import pytest

from carnet.errors import IKERefusedError, IKESilentError, IPsecError
from carnet.ipsec.agreed import leads_to
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.spec import AhHalf, Mode, Role
from carnet.ipsec.strongswan_algorithms import (
    faults,
    is_proposed,
    suite,
    unknown_words,
    weak_words,
)
from carnet.ipsec.strongswan_log import acknowledged, not_up
from carnet.ipsec.strongswan_messages import connections, pool, render, shared_keys
from carnet.ipsec.strongswan_others import taking_our_keys
from carnet.ipsec.strongswan_parts import is_of_client, parts, reqids, tunnel_of
from carnet.ipsec.strongswan_reports import (
    event,
    is_handing_over,
    newest_parts,
    renewed,
    status,
)
from carnet.ipsec.strongswan_shortfalls import shortfalls
from carnet.ipsec.strongswan_watch import Rekeyings
from carnet.objectives import Objective
from tests.unit.tunnels import CLIENT, PPK, PSK, TARGET

CHILD_SA = {
    "state": "INSTALLED",
    "mode": "TUNNEL",
    "protocol": "ESP",
    "encap": "yes",
    "encr-alg": "AES_GCM_16",
    "encr-keysize": "256",
    "bytes-in": "20",
    "bytes-out": "30",
    "local-ts": ["10.99.0.7/32"],
    "remote-ts": ["10.20.0.0/16"],
}

IKE_SA = {
    "version": "2",
    "state": "ESTABLISHED",
    "local-host": "192.168.77.2",
    "local-id": "client-7",
    "remote-host": "198.51.100.2",
    "remote-id": "target-7",
    "encr-alg": "AES_GCM_16",
    "encr-keysize": "256",
    "prf-alg": "PRF_HMAC_SHA2_256",
    "dh-group": "CURVE_25519",
    "ppk": "yes",
    "established": "5",
    "local-vips": ["10.99.0.7"],
    "child-sas": {"carnet-7-1": CHILD_SA},
}


HALF = AhHalf(
    local_identity="ah-client-7",
    remote_identity="ah-target-7",
    psk=bytes(range(50, 82)),
    ppk=bytes(range(150, 182)),
    ppk_id="ah-ppk-7",
)

BOTH = replace(CLIENT, objective=Objective.AH_ESP, ah_proposals=("sha256-x25519",), ah_half=HALF)

AH_SA = {
    "state": "INSTALLED",
    "mode": "TRANSPORT_PROXY",
    "protocol": "AH",
    "integ-alg": "HMAC_SHA2_256_128",
    "bytes-in": "40",
    "bytes-out": "50",
    "reqid": str(reqids("carnet-7")[1]),
    "local-ts": ["10.99.0.6/31"],
    "remote-ts": ["10.20.0.0/16"],
}

HALVES = {
    "carnet-7/esp": IKE_SA
    | {"child-sas": {"1": CHILD_SA | {"reqid": str(reqids("carnet-7")[0]), "encap": "no"}}},
    "carnet-7/ah": IKE_SA
    | {
        "local-id": "ah-client-7",
        "remote-id": "ah-target-7",
        "local-vips": [],
        "child-sas": {"1": AH_SA},
    },
}


def one_connection(spec):
    ((_, settings),) = (item for each in connections(spec) for item in each.items())
    return settings


def with_child(**change):
    return IKE_SA | {"child-sas": {"carnet-7-1": CHILD_SA | change}}


CHILDLESS = {name: fact for name, fact in IKE_SA.items() if name != "child-sas"}


def test_what_a_peer_makes_besides_hides_nothing_of_what_stands():
    """Newer and without a CHILD_SA, which a peer may begin, or older and to somebody else."""
    narrow = with_child(**{"remote-ts": ["10.20.0.0/29"]})
    for besides in (CHILDLESS, IKE_SA):
        for both in ([besides, narrow], [narrow, besides]):
            found = newest_parts(("carnet-7", each) for each in both)
            live = status("carnet-7", found)
            common = {False: ("10.20.0.0/29",), True: ()}[besides is IKE_SA]
            assert (live.established, live.remote_selectors) == (True, common)
            assert "its networks are others" in shortfalls(CLIENT, found)
    elsewhere = IKE_SA | {"remote-host": "203.0.113.2"}
    for both in ([elsewhere, IKE_SA], [IKE_SA, elsewhere], [elsewhere, CHILDLESS]):
        live = status("carnet-7", newest_parts(("carnet-7", each) for each in both))
        assert {live.remote_address, *live.other_peers} == {IKE_SA["remote-host"], "203.0.113.2"}
    both = newest_parts([("carnet-7", IKE_SA), ("carnet-7", dict(IKE_SA))])
    assert (shortfalls(CLIENT, both), status("carnet-7", both).sas) == ([], 4)


def test_who_has_the_virtual_address_is_the_client():
    assert status("carnet-7", {"carnet-7": IKE_SA}).role is Role.CLIENT
    more = {"carnet-7": IKE_SA | {"local-vips": ["10.99.0.7", "203.0.113.2"]}}
    assert status("carnet-7", more).virtual_address == "10.99.0.7, 203.0.113.2"
    older = ("carnet-7", IKE_SA | {"local-vips": ["203.0.113.2"]})
    both = newest_parts([older, ("carnet-7", IKE_SA)])
    assert status("carnet-7", both).virtual_address == "203.0.113.2, 10.99.0.7"
    assert newest_parts([("carnet-7", older[1] | DELETED)]) == {}
    target = {"carnet-7": IKE_SA | {"local-vips": [], "remote-vips": ["10.99.0.7"]}}
    assert status("carnet-7", target).role is Role.TARGET
    assert status("carnet-7", target).virtual_address == "10.99.0.7"
    assert status("carnet-7", HALVES).role is Role.CLIENT


@pytest.mark.parametrize(
    ("peer", "role"),
    [(["198.51.100.2"], Role.CLIENT), (["%any"], Role.TARGET), ([], Role.TARGET)],
)
def test_without_a_virtual_address_who_expects_anybody_is_the_target(peer, role):
    sas = {"carnet-7/native": CHILDLESS | {"local-vips": []}}
    assert status("carnet-7", sas, peer).role is role


def test_the_psk_belongs_to_both_identities_and_the_ppk_to_its_own():
    psk, ppk = shared_keys(CLIENT)
    assert psk == {
        "id": "carnet-7",
        "type": "IKE",
        "data": PSK,
        "owners": ["client-7", "target-7"],
    }
    assert ppk == {"id": "carnet-7/ppk", "type": "ppk", "data": PPK, "owners": ["ppk-7"]}
    assert [tunnel_of(key["id"]) for key in (psk, ppk)] == ["carnet-7", "carnet-7"]


def test_without_a_ppk_none_is_loaded_and_none_required():
    plain = replace(CLIENT, ppk=None, ppk_id=None)
    assert [key["type"] for key in shared_keys(plain)] == ["IKE"]
    assert "ppk_id" not in one_connection(plain)


def test_a_ppk_is_always_required():
    settings = one_connection(CLIENT)
    assert (settings["ppk_id"], settings["ppk_required"]) == ("ppk-7", "yes")


def test_client_asks_for_its_address_and_names_the_networks_behind_target():
    settings = one_connection(CLIENT)
    assert settings["vips"] == ["10.99.0.7"]
    assert settings["remote_addrs"] == ["198.51.100.2"]
    assert settings["local_addrs"] == ["%any"]
    assert settings["children"]["carnet-7"]["remote_ts"] == ["10.20.0.0/16"]
    assert "local_ts" not in settings["children"]["carnet-7"]
    assert pool(CLIENT) is None


def test_target_has_one_address_to_give_and_expects_the_traveller_anywhere():
    settings = one_connection(TARGET)
    assert settings["pools"] == ["carnet-7"]
    assert settings["remote_addrs"] == ["%any"]
    assert settings["remote"] == {"auth": "psk", "id": "client-7"}
    assert settings["children"]["carnet-7"]["local_ts"] == ["10.20.0.0/16"]
    assert pool(TARGET) == {"carnet-7": {"addrs": "10.99.0.7"}}


def test_nothing_comes_back_by_itself_and_nothing_is_authenticated_again():
    settings = one_connection(CLIENT)
    child = settings["children"]["carnet-7"]
    assert settings["reauth_time"] == "0"
    assert {child[key] for key in ("start_action", "close_action", "dpd_action")} == {"none"}


@pytest.mark.parametrize(("force", "said"), [(True, "yes"), (False, "no")])
def test_udp_encapsulation_is_forced_where_it_is_wanted(force, said):
    assert one_connection(replace(CLIENT, force_udp=force))["encap"] == said


@pytest.mark.parametrize("spec", [CLIENT, TARGET], ids=["client", "target"])
def test_what_is_shown_has_everything_but_the_secrets(spec):
    shown = render(spec)
    assert "proposals = aes256gcm16-prfsha256-x25519\n" in shown
    assert "ppk_required = yes\n" in shown
    assert shown.count("secret = (hidden)\n") == 2
    for secret in (PSK, PPK):
        for form in (str(secret), secret.hex(), secret.decode("latin-1")):
            assert form not in shown
            assert form not in repr(spec)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "tunnel-7"},
        {"name": "carnet-7/ppk"},
        {"remote_identity": "%any"},
        {"remote_identity": "*@office"},
        {"remote_identity": "@#00ff"},
        {"remote_identity": "keyid:7"},
        {"remote_identity": "client-7"},
        {"remote_addresses": ("%any",)},
        {"remote_addresses": ("0.0.0.0/0",)},
        {"remote_addresses": ("gw.example.org",)},
        {"remote_addresses": ("198.51.100.02",)},
        {"local_addresses": ("2001:DB8::7",)},
        {"ike_proposals": ("aes256gcm16, aes128",)},
        {"ike_proposals": ("aes256-x25519",)},
        {"esp_proposals": ("aes256ctr-x25519",), "allow_weak": True},
        {"remote_networks": ("10.20.0.1/16",)},
        {"remote_networks": ("dynamic",)},
        {"remote_networks": ("10.20.0.0/016",)},
        {"local_networks": ("10.20.0.1",)},
        {"virtual_address": "10.99.0.07"},
        {"virtual_address": "10.99.0.0/24"},
        {"virtual_address": None},
        {"virtual_address": "fd99::7"},
        {"remote_networks": ("10.20.0.0/16", "fd20::/64")},
        {"mode": Mode.TRANSPORT},
        {"ah_half": HALF},
        {"objective": Objective.AH_ESP, "ah_half": replace(HALF, psk=b"short")},
        {"objective": Objective.AH_ESP, "ah_half": replace(HALF, ppk=b"short")},
        {"objective": Objective.AH_ESP, "ah_half": replace(HALF, local_identity="%any")},
        {"psk": b"short"},
        {"ppk": b"short"},
        {"ppk": None},
        {"ppk_id": None},
        {"lifetime": 0},
    ],
    ids=str,
)
def test_a_spec_that_is_not_what_it_must_be_is_not_made(change):
    with pytest.raises(IPsecError, match="not acceptable") as raised:
        replace(CLIENT, **change)
    assert "short" not in raised.value.sentence


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::1"])
def test_addresses_of_every_form(address):
    assert replace(CLIENT, remote_addresses=(address,)).remote_addresses == (address,)


def test_suites_are_read_in_the_words_of_proposals():
    assert suite(IKE_SA) == ("aes256gcm16", "prfsha256", "x25519")
    cbc = {"encr-alg": "AES_CBC", "encr-keysize": "128", "integ-alg": "HMAC_SHA2_256_128"}
    assert suite(cbc) == ("aes128", "sha256")
    assert suite({"encr-alg": "CHACHA20_POLY1305", "encr-keysize": "256"}) == ("chacha20poly1305",)
    assert suite({"encr-alg": "ROT13"}) == ("ROT13",)


@pytest.mark.parametrize(
    ("agreed", "proposal", "holds"),
    [
        (("aes256gcm16",), "aes256gcm16-x25519", True),
        (("aes256gcm16", "x25519"), "aes256gcm16-x25519", True),
        (("aes128gcm16",), "aes256gcm16-aes128gcm16-x25519", True),
        (("aes128", "sha256", "prfsha256", "modp2048"), "aes128-sha256-modp2048", True),
        (("aes128", "sha256", "prfsha1", "modp2048"), "aes128-sha256-modp2048", False),
        (("aes128gcm16",), "aes256gcm16-x25519", False),
        (("aes256gcm16", "modp2048"), "aes256gcm16-x25519", False),
        (("aes128",), "aes128-sha256", False),
        (("sha256",), "aes128-sha256", False),
        ((), "aes256gcm16-x25519", False),
        (("aes256", "sha256"), "aes256gcm16-sha256-aes256", False),
        (("aes256gcm16", "sha256"), "aes256gcm16-sha256", False),
        (("sha256",), "aes256-sha256", False),
        (("ROT13",), "aes256gcm16-x25519", False),
    ],
)
def test_only_a_whole_proposal_will_do(agreed, proposal, holds):
    assert is_proposed(agreed, ["null-md5", proposal]) is holds


def test_words_that_could_not_be_compared_are_found():
    assert unknown_words(["aes256gcm16-prfsha256-x25519", "rot13-sha256-esn"]) == ["rot13"]


@pytest.mark.parametrize("proposal", ["null-sha256", "3des-md5", "aes128-sha1", "aes128-prfsha1"])
def test_weak_algorithms_are_found(proposal):
    assert weak_words([proposal, "aes256gcm16-prfsha256-x25519"])
    assert weak_words(["aes256gcm16-prfsha256-x25519", "aes128-sha256-modp2048"]) == []


@pytest.mark.parametrize(
    ("proposed", "what"),
    [
        ({"esp": ["aes256ctr-x25519"]}, ["ESP aes256ctr-x25519 without integrity"]),
        ({"esp": ["aes256gcm16", "aes256"]}, ["ESP aes256 without integrity"]),
        ({"esp": ["aes256gcm16-aes256"]}, ["ESP aes256gcm16-aes256 without integrity"]),
        ({"esp": ["sha256-x25519"]}, ["ESP sha256-x25519 without encryption"]),
        ({"esp": ["null"]}, ["ESP null without integrity"]),
        ({"ah": ["x25519"]}, ["AH x25519 without integrity"]),
        ({"ike": ["aes256-prfsha256-x25519"]}, ["IKE aes256-prfsha256-x25519 without integrity"]),
        (
            {"ike": ["aes256gcm16-x25519"]},
            ["IKE aes256gcm16-x25519 without a pseudo-random function"],
        ),
        ({"ike": ["aes256-sha256"]}, ["IKE aes256-sha256 without a key exchange"]),
    ],
    ids=str,
)
def test_what_a_proposal_does_not_do_without_is_missed(proposed, what):
    assert faults(**proposed) == what


@pytest.mark.parametrize(
    ("proposed", "what"),
    [
        ({"ah": ["aes256-sha256"]}, ["AH aes256-sha256 with encryption"]),
        (
            {"ah": ["aes256gcm16"]},
            ["AH aes256gcm16 without integrity", "AH aes256gcm16 with encryption"],
        ),
        ({"ah": ["sha256-prfsha256"]}, ["AH sha256-prfsha256 with a pseudo-random function"]),
        (
            {"esp": ["aes256-sha256-prfsha256"]},
            ["ESP aes256-sha256-prfsha256 with a pseudo-random function"],
        ),
        (
            {"esp": ["aes256gcm16-sha256-aes256"]},
            ["ESP aes256gcm16-sha256-aes256 with integrity beside its cipher's own"],
        ),
        (
            {"esp": ["chacha20poly1305-sha256"]},
            ["ESP chacha20poly1305-sha256 with integrity beside its cipher's own"],
        ),
        (
            {"ike": ["aes256gcm16-sha256-prfsha256-x25519"]},
            ["IKE aes256gcm16-sha256-prfsha256-x25519 with integrity beside its cipher's own"],
        ),
        (
            {"ike": ["aes256-sha256-x25519-esn"]},
            ["IKE aes256-sha256-x25519-esn with extended sequence numbers"],
        ),
    ],
    ids=str,
)
def test_what_a_proposal_has_that_its_protocol_has_not_is_found(proposed, what):
    assert faults(**proposed) == what
    with pytest.raises(IPsecError, match=re.escape(what[0])):
        replace(CLIENT, **{f"{protocol}_proposals": each for protocol, each in proposed.items()})


def test_whole_proposals_have_no_faults():
    whole = {
        "ike": ["aes256gcm16-prfsha256-x25519", "aes128-sha256-modp2048"],
        "esp": ["chacha20poly1305-esn", "aes256ctr-sha384-x25519", "3des-md5", "null-sha256"],
        "ah": ["md5", "sha256-x25519", "sha256-esn-noesn"],
    }
    assert faults(**whole) == []


def test_what_was_agreed_has_no_shortfall():
    assert shortfalls(CLIENT, {"carnet-7": IKE_SA}) == []
    at_target = with_child(**{"local-ts": ["10.20.0.0/16"], "remote-ts": ["10.99.0.7/32"]}) | {
        "local-id": "target-7",
        "remote-id": "client-7",
        "local-vips": [],
        "remote-vips": ["10.99.0.7"],
    }
    assert shortfalls(TARGET, {"carnet-7": at_target}) == []


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (IKE_SA | {"state": "CONNECTING"}, "it is not established"),
        (IKE_SA | {"child-sas": {}}, "it is not established"),
        (with_child(state="DELETED"), "it is not established"),
        (IKE_SA | {"version": "1"}, "it is not IKEv2"),
        (IKE_SA | {"remote-id": "someone"}, "it is not between the two identities"),
        (IKE_SA | {"encr-keysize": "128"}, "its IKE algorithms were not proposed"),
        (IKE_SA | {"dh-group": "MODP_2048"}, "its IKE algorithms were not proposed"),
        (IKE_SA | {"ppk": "no"}, "it has no post-quantum key"),
        ({k: v for k, v in IKE_SA.items() if k != "ppk"}, "it has no post-quantum key"),
        (with_child(protocol="AH"), "it is not ESP"),
        (with_child(**{"encr-alg": "NULL"}), "its ESP algorithms were not proposed"),
        (with_child(mode="TRANSPORT"), "its mode is another"),
        (IKE_SA | {"local-vips": ["10.99.0.8"]}, "its virtual address is another"),
        (with_child(**{"remote-ts": ["10.20.0.0/24"]}), "its networks are others"),
        (with_child(**{"remote-ts": ["10.20.0.0/16[tcp]"]}), "its networks are others"),
        (with_child(**{"remote-ts": ["10.20.0.1..10.20.255.254"]}), "its networks are others"),
        (with_child(**{"local-ts": ["10.99.0.8/32"]}), "its networks are others"),
    ],
)
def test_whatever_is_less_than_agreed_is_named(report, said):
    assert shortfalls(CLIENT, {"carnet-7": report}) == [said]


def test_each_half_has_identities_and_keys_of_its_own_and_no_policies():
    esp, ah = (settings for each in connections(BOTH) for settings in each.values())
    assert (esp["local"]["id"], ah["local"]["id"]) == ("client-7", "ah-client-7")
    assert (esp["ppk_id"], ah["ppk_id"]) == ("ppk-7", "ah-ppk-7")
    assert {ah["ppk_required"], esp["ppk_required"]} == {"yes"}
    assert ("vips" in esp, "vips" in ah) == (True, False)
    (esp_child,), (ah_child,) = esp["children"].values(), ah["children"].values()
    assert {esp_child["policies"], ah_child["policies"]} == {"no"}
    assert (esp_child["reqid"], ah_child["reqid"]) == tuple(map(str, reqids("carnet-7")))
    # Only Target's kernel blocks by it what comes by one half alone.
    assert "set_mark_in" not in {**esp_child, **ah_child}
    assert "ah_proposals" not in esp_child
    assert "esp_proposals" not in ah_child
    assert [key["id"] for key in shared_keys(BOTH)] == [
        *("carnet-7", "carnet-7/ppk"),
        *("carnet-7/ah", "carnet-7/ah/ppk"),
    ]
    assert len({key["data"] for key in shared_keys(BOTH)}) == 4
    assert "secret = (hidden)" in render(BOTH)


@pytest.mark.parametrize(
    ("networks", "mode", "selector"),
    [
        (("10.20.0.0/24", "10.20.128.0/24"), "transport_proxy", ("10.20.0.0/16",)),
        (("10.20.0.9/32",), "transport_proxy", ("10.20.0.8/31",)),
        (("0.0.0.0/0",), "tunnel", ()),
        (("10.20.0.0/16", "198.51.100.0/24"), "tunnel", ()),
    ],
)
def test_the_selector_of_an_ah_half_in_transport_mode_has_no_address_of_targets(
    networks, mode, selector
):
    client = replace(BOTH, remote_networks=networks, remote_addresses=("198.51.100.2",))
    half = parts(client)[1]
    assert (half.mode, half.remote_selectors) == (mode, selector)
    assert half.local_selectors == (("10.99.0.6/31",) if selector else ())


def test_without_ipsec_there_is_no_child():
    native = replace(CLIENT, objective=Objective.NATIVE, mode=Mode.TRANSPORT, virtual_address=None)
    (settings,) = connections(native)[0].values()
    assert settings["childless"] == "force"
    assert not {"children", "vips"} & set(settings)
    assert [part.name for part in parts(native)] == ["carnet-7/native"]


def test_request_ids_are_of_one_tunnel():
    assert len({*reqids("carnet-7"), *reqids("carnet-8")}) == 4
    assert all(1 << 30 <= each < 1 << 32 for each in reqids("carnet-7"))


def test_each_end_of_a_tunnel_with_one_sa_has_a_request_id_of_its_own():
    """By which the kernel's part of it is found, also by who comes after a crash."""
    ends = [one_connection(spec)["children"]["carnet-7"] for spec in (CLIENT, TARGET)]
    assert tuple(int(each["reqid"]) for each in ends) == reqids("carnet-7")
    assert [is_of_client(int(each["reqid"])) for each in ends] == [True, False]
    assert not any("policies" in each for each in ends)
    between_hosts = replace(CLIENT, mode=Mode.TRANSPORT, virtual_address=None, remote_networks=())
    assert "reqid" not in one_connection(between_hosts)["children"]["carnet-7"]


def test_two_whole_halves_have_no_shortfall():
    assert shortfalls(BOTH, HALVES) == []
    found = status("carnet-7", HALVES)
    assert found.established
    assert found.child_suite == "AH sha256, ESP aes256gcm16"
    assert found.remote_selectors == BOTH.remote_networks


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("esp", {"state": "CONNECTING"}, "its ESP half is not established"),
        ("ah", {"child-sas": {}}, "its AH half is not established"),
        ("ah", {"local-id": "client-7"}, "it is not between the two identities"),
        ("ah", {"ppk": "no"}, "it has no post-quantum key"),
        ("ah", {"nat-remote": "yes"}, "there is NAT on the way, which it does not survive"),
        ("ah", {"child-sas": {"1": AH_SA | {"protocol": "ESP"}}}, "it is not AH"),
        ("ah", {"child-sas": {"1": AH_SA | {"reqid": "7"}}}, "its halves are not tied together"),
        ("ah", {"child-sas": {"1": AH_SA | {"integ-alg": "HMAC_MD5_96"}}}, "its AH algorithms"),
        ("esp", {"child-sas": {"1": CHILD_SA}}, "its halves are not tied together"),
    ],
)
def test_a_half_that_is_less_than_agreed_is_named(part, change, said):
    name = f"carnet-7/{part}"
    (found,) = shortfalls(BOTH, HALVES | {name: HALVES[name] | change})
    assert found.startswith(said)


def test_one_half_alone_is_no_tunnel():
    for name, half in HALVES.items():
        assert not status("carnet-7", {name: half}).established


REKEYED = IKE_SA | {"state": "REKEYED", "child-sas": {}}


@pytest.mark.parametrize(
    ("sas", "handing_over"),
    [
        ([], False),
        ([("carnet-7", IKE_SA)], False),
        ([("carnet-7", REKEYED)], True),
        ([("carnet-7", IKE_SA | {"child-sas": {}, "state": "REKEYING"})], True),
        ([("carnet-7", REKEYED), ("carnet-7", IKE_SA)], False),
        ([("carnet-7", REKEYED), ("carnet-8", IKE_SA)], True),
        ([("carnet-7", IKE_SA | {"state": "CONNECTING", "child-sas": {}})], False),
        ([("carnet-7", REKEYED | {"state": "DELETING"})], True),
        ([("carnet-7", IKE_SA | {"state": "DELETING"})], False),
        ([("carnet-7/native", REKEYED | {"state": "DELETING"})], False),
    ],
)
def test_a_rekeyed_sa_without_its_successor_is_no_end(sas, handing_over):
    assert is_handing_over(sas) is handing_over


def test_status_says_whether_the_peer_has_yet_to_answer():
    asking = IKE_SA | {"tasks-active": ["IKE_DPD"]}
    found = [status("carnet-7", {"carnet-7": each}) for each in (IKE_SA, asking)]
    assert [each.unanswered for each in found] == [False, True]


def test_status_reads_the_child_that_carries_packets_now():
    old = CHILD_SA | {"state": "DELETED", "encr-alg": "NULL", "bytes-in": "1", "bytes-out": "2"}
    ike_sa = IKE_SA | {"child-sas": {"carnet-7-0": old, "carnet-7-1": CHILD_SA}}
    found = status("carnet-7", {"carnet-7": ike_sa})
    assert found.established
    assert found.child_suite == "ESP aes256gcm16"
    assert (found.bytes_in, found.bytes_out) == (21, 32)
    assert (found.encapsulated, found.ppk, found.established_seconds) == (True, True, 5)
    assert list(found.local_selectors or ()) == CHILD_SA["local-ts"]
    assert list(found.remote_selectors or ()) == CHILD_SA["remote-ts"]


NARROW = CHILD_SA | {"remote-ts": ["10.20.0.1..10.20.0.3"]}
FROM_A_PORT = CHILD_SA | {"local-ts": ["10.99.0.7/32[udp/53]"]}
MORE = CHILD_SA | {"remote-ts": ["10.77.0.0/16", "10.20.0.0/16"]}
GONE = {"state": "DELETED"}


@pytest.mark.parametrize(
    ("children", "leads"),
    [
        ([CHILD_SA, NARROW, CHILD_SA], False),
        ([NARROW, MORE], False),
        ([FROM_A_PORT, CHILD_SA], False),
        ([CHILD_SA, NARROW], False),
        ([NARROW | GONE, CHILD_SA], True),
        ([CHILD_SA | {"state": "REKEYING"}, CHILD_SA], True),
        ([CHILD_SA, MORE], True),
    ],
)
def test_a_tunnel_leads_where_each_of_its_children_does(children, leads):
    """Any of them may be the one that is left."""
    listed = {f"carnet-7-{number}": child for number, child in enumerate(children)}
    found = status("carnet-7", {"carnet-7": IKE_SA | {"child-sas": listed}})
    assert leads_to(found, CLIENT.remote_networks) is leads


DELETED = {"state": "DELETING"}


def test_events_of_others_are_not_ours():
    assert event({"up": "yes", "carnet-7": IKE_SA}) == TunnelEvent("carnet-7", Change.UP)
    assert event({"carnet-7": IKE_SA | DELETED}) == TunnelEvent("carnet-7", Change.DOWN)
    assert event({"carnet-7": IKE_SA}) == TunnelEvent("carnet-7", Change.LOST)
    assert event({"up": "yes", "site-to-site": IKE_SA}) is None


CHILDLESS = {key: value for key, value in IKE_SA.items() if key != "child-sas"}


def test_a_tunnel_is_up_with_its_last_part_and_down_with_any():
    up, down = TunnelEvent("carnet-7", Change.UP), TunnelEvent("carnet-7", Change.DOWN)
    anew = TunnelEvent("carnet-7", Change.ANEW)
    assert event({"up": "yes", "carnet-7": CHILDLESS}) == anew
    assert event({"carnet-7": CHILDLESS | DELETED}) is None
    assert event({"up": "yes", "carnet-7/esp": IKE_SA}) == anew
    assert event({"up": "yes", "carnet-7/ah": IKE_SA}) == up
    for half in ("esp", "ah"):
        assert event({f"carnet-7/{half}": IKE_SA | DELETED}) == down
    assert event({"up": "yes", "carnet-7/native": CHILDLESS}) == up
    assert event({"carnet-7/native": CHILDLESS | DELETED}) == down


def test_what_is_rekeyed_or_moved_may_be_another():
    anew = TunnelEvent("carnet-7", Change.ANEW)
    for part in ("carnet-7", "carnet-7/esp", "carnet-7/ah", "carnet-7/native"):
        assert renewed({part: IKE_SA}) == anew
    assert renewed({"local-host": "192.0.2.1", "carnet-7": CHILDLESS}) == anew
    assert renewed({"site-to-site": IKE_SA}) is None


def test_of_ike_sas_that_are_rekeyed_one_of_three_is_told_of_each_tunnel():
    """An honest one is rekeyed as it comes up, and hours later."""
    rekeyings = Rekeyings()
    one, other = (TunnelEvent(name, Change.ANEW) for name in ("carnet-7", "carnet-8"))
    told = [rekeyings.is_told(each) for each in (one, one, other, one, one, one, other)]
    assert told == [False, False, False, True, False, False, False]
    rekeyings.forget(one)
    assert not rekeyings.is_told(one)


_INIT = (
    "generating IKE_SA_INIT request 0 [ SA KE No ]",
    "parsed IKE_SA_INIT response 0 [ SA KE No ]",
    "generating IKE_AUTH request 1 [ IDi AUTH ]",
)
_AUTH = ("sending packet: from 192.0.2.7[4500] to 198.51.100.2[4500] (300 bytes)",)
_AUTH_FROM_4500 = (
    *_AUTH,
    "received packet: from 198.51.100.2[4500] to 192.0.2.7[4500] (300 bytes)",
    "parsed IKE_AUTH response 1 [ IDr AUTH ]",
)
_COOKIE = (
    "generating IKE_SA_INIT request 0 [ SA KE No ]",
    "parsed IKE_SA_INIT response 0 [ N(COOKIE) ]",
    "generating IKE_SA_INIT request 0 [ N(COOKIE) SA KE No ]",
)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (["received packet", "received AUTHENTICATION_FAILED notify error"], "keys of the two"),
        (["received packet", "received NO_PROPOSAL_CHOSEN notify error"], "NO_PROPOSAL_CHOSEN"),
        (["received packet", "received TS_UNACCEPTABLE notify, no CHILD_SA built"], "TS_UNACC"),
        (["sending packet", "retransmit 1 of request"], "does not answer IKE on UDP ports 500"),
        (["received packet", "something new"], "look there"),
        ([], "does not answer"),
        (["received packet", *_INIT, *_AUTH, "retransmit 1 of request"], "not on UDP port 4500"),
        ([*_AUTH_FROM_4500, "generating IKE_AUTH request 2 [ AUTH ]"], "then fell silent"),
        ([*_INIT, "parsed IKE_AUTH response 1 [ EF(1/2) ]", "received packet"], "fell silent"),
        (["received packet", *_COOKIE, "retransmit 1 of request"], "try again in half a minute"),
    ],
)
def test_failures_are_told_apart(log, said):
    assert said in not_up(log).sentence


def test_silence_is_told_apart_from_a_no():
    assert isinstance(not_up(["sending packet"]), IKESilentError)
    assert isinstance(not_up(["received packet", *_INIT, *_AUTH]), IKESilentError)
    assert isinstance(not_up(["received packet", *_COOKIE]), IKESilentError)
    assert not isinstance(not_up(["sending packet", "received packet"]), IKESilentError)


@pytest.mark.parametrize(
    "last",
    ["generating INFORMATIONAL request 2 [ N(AUTH_FAILED) ]", "received TS_UNACCEPTABLE notify"],
)
def test_a_no_stays_one_whatever_is_sent_after_it(last):
    assert isinstance(not_up(["received packet", *_INIT, *_AUTH, last]), IKERefusedError)


def test_an_ike_sa_that_is_gone_is_not_one_whose_end_was_acknowledged():
    sent = ["sending DELETE for IKE_SA carnet-7[2]", "generating INFORMATIONAL request 5 [ D ]"]
    assert acknowledged([*sent, "parsed INFORMATIONAL response 5 [ ]", "IKE_SA deleted"])
    assert not acknowledged([*sent, "giving up after 2 retransmits"])


def test_with_ikev1_the_status_is_told_while_there_is_no_ipsec_sa_yet():
    sa = {"version": "1", "state": "ESTABLISHED", "local-host": "a", "remote-host": "b"}
    told = status("carnet-7", {"carnet-7": sa})
    assert (told.established, told.virtual_address) == (False, None)
    assert told.remote_selectors is None


@pytest.mark.parametrize(
    "selector", ["10.99.0.7/32[tcp/443]", "10.99.0.1..10.99.0.6", "10.99.0.7/24", "dynamic"]
)
def test_with_ikev1_the_status_is_told_whatever_its_peer_has_narrowed(selector):
    """Else one member's Target would keep all others' from being told."""
    child = {"mode": "TUNNEL", "state": "INSTALLED", "local-ts": [selector], "remote-ts": []}
    child |= {"bytes-in": "0", "bytes-out": "0"}
    sa = {"version": "1", "state": "ESTABLISHED", "local-host": "a", "remote-host": "b"}
    told = status("carnet-7", {"carnet-7": sa | {"child-sas": {"one": child}}}, ("b",))
    assert told.virtual_address is None


@pytest.mark.parametrize(
    ("peer", "takes"),
    [
        ({"class": "pre-shared key"}, True),
        ({}, True),
        *(
            ({"id": name}, True)
            for name in ("%any", "*", "*.carnet", "*7.carnet", "*t", "^t-.*$", "*.CARNET", "%ANY")
        ),
        *(({"id": name}, False) for name in ("vpn.example", "198.51.100.2", "*@a.example", "*.de")),
        ({"class": "public key"}, False),
    ],
)
def test_a_connection_that_does_not_name_its_peer_would_take_our_keys(peer, takes):
    own = {"class": "pre-shared key", "id": "office.example"}
    listed = {"local-1": own, "remote-1": peer, "version": "IKEv2"}
    assert taking_our_keys({"office": listed, "carnet-7": listed}) == (["office"] if takes else [])


@pytest.mark.parametrize("own", [{}, {"id": "%any"}, {"id": "office.example"}], ids=str)
@pytest.mark.parametrize("proof", ["pre-shared key", "public key"])
def test_one_that_does_not_name_its_own_end_would_take_our_keys_for_its_peer(own, proof):
    """Who has one calls it as the tunnel's end is called."""
    peer = {"class": proof, "id": "vpn.example"}
    taken = proof == "pre-shared key" and own != {"id": "office.example"}
    found = taking_our_keys({"office": {"local-1": own, "remote-1": peer}})
    assert found == (["office"] if taken else [])

"""The Libreswan driver's pure parts: what it writes, and how it judges what it hears.

What it writes goes through Libreswan's own parsers; what it hears was recorded.
"""

import socket
import subprocess
from dataclasses import replace

import pytest

from carnet.errors import (
    DaemonGoneError,
    DaemonSilentError,
    IKERefusedError,
    IKESilentError,
    IPsecError,
)
from carnet.ipsec import inner_address
from carnet.ipsec import libreswan_algorithms as algorithms
from carnet.ipsec.driver import Lead
from carnet.ipsec.example import example_spec
from carnet.ipsec.libreswan import Libreswan
from carnet.ipsec.libreswan_conf import (
    Head,
    configuration,
    head,
    head_of,
    render,
    secrets,
)
from carnet.ipsec.libreswan_reports import (
    Tunnel,
    ike_versions_of,
    not_up,
    open_main_mode,
    shortfalls,
    status,
    tunnels,
    version_of,
)
from carnet.ipsec.libreswan_tools import ANSWER_TIME_LIMIT, LIBEXEC, Tools, is_in_memory
from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.unanswered import BRIEF_SECONDS
from carnet.objectives import Objective
from helper_agent.claims import Leading
from helper_agent.guard import is_installed
from target_agent.proposals import PROFILES, Profile
from tests.unit.iproute import stand_in
from tests.unit.tunnels import CLIENT, TARGET

PSK, PPK = "0x" + CLIENT.psk.hex(), "0x" + CLIENT.ppk.hex()

RECORDED = """\
000 configdir=/etc, configfile=/lab/carnet-7/ipsec.conf, secrets=/lab/ipsec.secrets
000 pluto_version=4.10, pluto_vendorid=OE-Libreswan-4.10, audit-log=yes
000 "carnet-7": 0.0.0.0/0===192.168.77.2[@client-7,+MC+S=C]---192.168.77.1...198.51.100.2[@target-7]===10.20.0.0/16; unrouted; eroute owner: #0
000 "carnet-7":   policy: IKEv2+PSK+ENCRYPT+TUNNEL+PFS+IKE_FRAG_ALLOW+PPK_ALLOW+PPK_INSIST+ESN_NO;
000 "carnet-7":   newest IKE SA: #0; newest IPsec SA: #0; conn serial: $3;
000 "carnet-7"[1]: 10.99.0.7/32===192.168.77.2[@client-7,+MC+S=C]---192.168.77.1...198.51.100.2[@target-7]===10.20.0.0/16; erouted; eroute owner: #8
000 "carnet-7"[1]:     oriented; my_ip=10.99.0.7; their_ip=unset; my_updown=<disabled>;
000 "carnet-7"[1]:   policy: IKEv2+PSK+ENCRYPT+TUNNEL+PFS+UP+IKEV2_ALLOW_NARROWING+PPK_ALLOW+PPK_INSIST+ESN_NO;
000 "carnet-7"[1]:   newest IKE SA: #9; newest IPsec SA: #8; conn serial: $4, instantiated from: $3;
000 "carnet-7"[1]:   IKE algorithms: AES_GCM_16_256-HMAC_SHA2_256-DH31
000 "carnet-7"[1]:   IKEv2 algorithm newest: AES_GCM_16_256-HMAC_SHA2_256-DH31
000 "carnet-7"[1]:   ESP algorithms: AES_GCM_16_256-NONE
000 "carnet-7"[1]:   ESP algorithm newest: AES_GCM_16_256-NONE; pfsgroup=<Phase1>
000 "elsewhere": 192.0.2.1<192.0.2.1>...%any; unrouted; eroute owner: #0
000 #8: "carnet-7"[1] 198.51.100.2:500 STATE_V2_ESTABLISHED_CHILD_SA (established Child SA); REKEY in 28237s; REPLACE in 28798s; newest; eroute owner; IKE SA #9; idle;
000 #8: "carnet-7"[1] 198.51.100.2 esp.b259026e@198.51.100.2 esp.fdcfd9ff@192.168.77.2 tun.0@198.51.100.2 tun.0@192.168.77.2 Traffic: ESPin=0B ESPout=0B ESPmax=2^63B
000 #9: "carnet-7"[1] 198.51.100.2:500 STATE_V2_ESTABLISHED_IKE_SA (established IKE SA); REKEY in 27805s; REPLACE in 28798s; newest; idle;
006 #8: "carnet-7"[1] 198.51.100.2, type=ESP, add_time=1795900869, inBytes=84, outBytes=168, maxBytes=2^63B, id='@target-7', lease=10.99.0.7/32
"""  # noqa: E501  as it was said

RECORDED_V6 = """\
000 #1: "carnet-6"[1] fd51::2:500 STATE_V2_ESTABLISHED_IKE_SA (established IKE SA); REKEY in 13390s; newest; idle;
000 #2: "carnet-6"[1] fd51::2:500 STATE_V2_ESTABLISHED_CHILD_SA (established Child SA); LIVENESS in 29s; newest; eroute owner; IKE SA #1; idle;
000 #2: "carnet-6"[1] fd51::2 esp:5ee6a79a@fd51::2 esp:fb8534c3@fd77::2 tun:0@fd51::2 tun:0@fd77::2 Traffic: ESPin=0B ESPout=0B ESPmax=2^63B
"""  # noqa: E501


RECORDED_IKEV1 = """\
000 sendca=none, ikev1-policy=accept, ocsp-enable=no
000 "carnet-7": 10.20.0.0/16===198.51.100.2...%any===10.99.0.7/32; unrouted; eroute owner: #0
000 "carnet-7":   policy: IKEv1+PSK+ENCRYPT+TUNNEL+PFS+IKE_FRAG_ALLOW+ESN_NO;
000 "carnet-7"[2]: 10.20.0.0/16===198.51.100.2...192.168.77.2[@client-7]===10.99.0.7/32; erouted; eroute owner: #2
000 "carnet-7"[2]:   policy: IKEv1+PSK+ENCRYPT+TUNNEL+PFS+IKE_FRAG_ALLOW+ESN_NO;
000 "carnet-7"[2]:   IKEv1 algorithm newest: AES_CBC_256-HMAC_SHA2_256-MODP2048
000 "carnet-7"[2]:   ESP algorithm newest: AES_CBC_256-HMAC_SHA2_256_128; pfsgroup=<Phase1>
000 "gateway": 192.0.2.1...192.0.2.2; unrouted; eroute owner: #0
000 "gateway":   policy: IKEv1+PSK+ENCRYPT+TUNNEL+PFS;
000 "newer": 192.0.2.1...%any; unrouted; eroute owner: #0
000 "newer":   policy: IKEv2+PSK+ENCRYPT+TUNNEL+PFS;
000 "others": 192.0.2.1---192.0.2.254...%any[+MC+S=C]; unrouted; eroute owner: #0
000 "others":   policy: IKEv1+PSK+ENCRYPT+TUNNEL+PFS;
000 #1: "carnet-7"[2] 192.168.77.2:500 STATE_MAIN_R3 (IKE SA established); REPLACE in 85465s; newest; lastdpd=-1s(seq in:0 out:0); idle;
000 #2: "carnet-7"[2] 192.168.77.2:500 STATE_QUICK_R2 (IPsec SA established); REPLACE in 2590s; newest; eroute owner; ISAKMP SA #1; idle;
000 #2: "carnet-7"[2] 192.168.77.2 esp.b259026e@192.168.77.2 esp.fdcfd9ff@198.51.100.2 tun.0@192.168.77.2 tun.0@198.51.100.2 Traffic: ESPin=0B ESPout=0B ESPmax=2^63B
"""  # noqa: E501


def old(spec):
    return replace(
        spec,
        ike_version=1,
        local_addresses=("198.51.100.2",) if spec.role is Role.TARGET else (),
        ike_proposals=("aes256-sha256-modp2048",),
        esp_proposals=("aes256-sha256-modp2048",),
        ppk=None,
        ppk_id=None,
    )


def ah_of(spec):
    return replace(
        spec,
        objective=Objective.AH,
        mode=Mode.TRANSPORT,
        virtual_address=None,
        local_networks=(),
        remote_networks=(),
        esp_proposals=(),
        ah_proposals=("sha256-x25519", "sha384-ecp384"),
    )


SPECS = (
    CLIENT,
    replace(TARGET, local_addresses=("198.51.100.2",)),
    ah_of(CLIENT),
    replace(ah_of(TARGET), local_addresses=("198.51.100.2",), ppk=None, ppk_id=None),
    replace(
        CLIENT,
        remote_addresses=("fd51::2",),
        remote_networks=("fd20::/64",),
        virtual_address="fd99::7",
        force_udp=True,
    ),
    old(CLIENT),
    old(TARGET),
)


@pytest.mark.parametrize(
    "spec", SPECS, ids=lambda spec: f"{spec.role}-{spec.objective.label}-{spec.ike_version}"
)
def test_libreswans_own_parser_takes_what_is_written(tmp_path, spec):
    path = tmp_path / "tunnel.conf"
    path.write_text(configuration(spec))
    assert checked(path).returncode == 0, checked(path).stderr
    path.write_text(configuration(spec).replace("ppk=", "pqk="))
    assert checked(path).returncode != 0


def checked(path):
    command = [f"{LIBEXEC}/addconn", "--checkconfig", "--config", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("profile", Profile)
def test_libreswan_reads_our_proposals_as_they_are_meant(profile):
    proposed = PROFILES[profile]
    for key, translate, back, proposals in (
        ("ike", algorithms.ike, algorithms.ike_suite, proposed.ike),
        ("esp", algorithms.esp, algorithms.child_suite, proposed.esp),
        ("ah", algorithms.ah, algorithms.child_suite, proposed.ah),
    ):
        read = read_by_libreswan(f"{key}={translate(proposals)}")
        words = {word for proposal in proposals for word in proposal.split("-")}
        for suite in read:
            assert set(back(suite)) <= words | {"prfmd5", "prfsha1"}, suite
        assert len(read) == len({without_group(each, key) for each in proposals})


def without_group(proposal, key):
    words = proposal.split("-")
    return proposal if key == "ike" else words[0] if words[-1][-3:].isdigit() else proposal


def read_by_libreswan(setting):
    """Return how its own parser reads it, in the names of its reports."""
    done = subprocess.run(
        [f"{LIBEXEC}/algparse", "-v2", setting], capture_output=True, text=True, check=True
    )
    assert "ERROR" not in done.stdout
    return [line.strip() for line in done.stdout.splitlines() if line.startswith("\t")]


@pytest.mark.parametrize(
    ("reported", "suite"),
    [
        ("3DES_CBC_192-HMAC_MD5_96", "3des-md5"),
        ("CHACHA20_POLY1305_256-NONE", "chacha20poly1305"),
        ("NULL_000-HMAC_SHA2_256_128", "null-sha256"),
    ],
)
def test_what_is_in_use_is_known_by_its_name_with_the_bits_of_its_key(reported, suite):
    said = RECORDED.replace("newest: AES_GCM_16_256-NONE", f"newest: {reported}")
    tunnel, spec = tunnels(said)["carnet-7"], replace(CLIENT, esp_proposals=(suite,))
    assert shortfalls(spec, tunnel, encapsulated=False) == []
    assert shortfalls(CLIENT, tunnel, encapsulated=False) == [
        "its ESP algorithms were not proposed"
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_an_ipsec_sa_has_a_key_exchange_of_its_own_only_where_one_is_proposed(version):
    spec = old(CLIENT) if version == 1 else CLIENT
    without = replace(spec, esp_proposals=("3des-md5", "3des-sha1"), allow_weak=True)
    assert "    pfs=yes\n" in configuration(spec)
    assert "    pfs=no\n" in configuration(without)


@pytest.mark.parametrize(
    ("translate", "proposal"),
    [
        (algorithms.ike, "aes256-sha256-prfsha384-x25519"),
        (algorithms.ike, "aes256gcm16-sha256-x25519"),
        (algorithms.ike, "aes256gcm16-prfaesxcbc-x25519"),
        (algorithms.ike, "aes256gcm16-prfsha256"),
        (algorithms.ike, "aes256gcm16-prfsha256-x448"),
        (algorithms.esp, "aes256"),
        (algorithms.esp, "sha256"),
        (algorithms.esp, "aes256gcm16-sha256"),
        (algorithms.ah, "aes256-sha256"),
        (algorithms.ah, "aesxcbc"),
    ],
)
def test_what_libreswan_has_no_words_for_is_refused(translate, proposal):
    with pytest.raises(algorithms.UnknownProposalError):
        translate((proposal,))


def test_psk_and_ppk_are_in_the_secrets_and_nowhere_else():
    lines = secrets(CLIENT).splitlines()
    assert lines == [
        f"@client-7 @target-7 : PSK {PSK}",
        f'@client-7 @target-7 : PPKS "ppk-7" {PPK}',
    ]
    for text in (configuration(CLIENT), render(CLIENT)):
        assert PSK[2:] not in text
        assert PPK[2:] not in text
    assert "PSK (hidden)" in render(CLIENT)
    assert "ppk=insist" in configuration(CLIENT)
    assert "ppk=no" in configuration(replace(CLIENT, ppk=None, ppk_id=None))


def test_the_head_tells_who_comes_later_what_is_ours():
    assert head_of(configuration(CLIENT)) == head(CLIENT)
    assert head_of("conn carnet-7\n") is None
    whole = configuration(CLIENT).splitlines()[0]
    for length in range(whole.index('"targets"')):
        assert head_of(f"{whole[:length]}\n") is None
        assert head_of(f"{whole[: length // 2]}}}\n") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"remote_networks": ("10.20.0.0/16", "10.30.0.0/16")}, "one network"),
        ({"remote_networks": ("fd20::/64",), "virtual_address": "fd99::7"}, "one IP version"),
        ({"esp_proposals": ("3des-md5",)}, "weak algorithms 3des, md5"),
        ({"esp_proposals": ()}, "such proposals"),
        ({"ah_proposals": ("sha256",)}, "such proposals"),
        ({"ike_proposals": ()}, "without proposals"),
        ({"ike_proposals": ("aes256-sha256-prfsha384-x25519",)}, "prfsha384"),
        ({"remote_addresses": ()}, "knows no Target"),
        ({"objective": Objective.NATIVE}, "without IPsec"),
        ({"ike_version": 1}, "a post-quantum key with IKEv1"),
        (
            {"ike_version": 1, "ppk": None, "ppk_id": None, "lifetime": 24 * 3600},
            "such a long session with IKEv1",
        ),
    ],
    ids=str,
)
def test_what_it_cannot_carry_is_refused_with_the_reason(change, said):
    with pytest.raises(IPsecError, match=f"{said}.*nothing is downgraded"):
        configuration(replace(CLIENT, **change))


def test_ah_and_esp_together_and_a_target_at_two_addresses_are_refused():
    with pytest.raises(IPsecError, match="AH and ESP together"):
        render(example_spec(Objective.AH_ESP, Mode.TUNNEL, ()))
    with pytest.raises(IPsecError, match="several addresses"):
        configuration(replace(TARGET, local_addresses=("198.51.100.2", "198.51.100.3")))


def test_a_tunnel_is_read_from_what_whack_says():
    (tunnel,) = tunnels(RECORDED).values()
    assert tunnel.established
    assert (tunnel.local_address, tunnel.remote_address) == ("192.168.77.2", "198.51.100.2")
    shown = status(tunnel, head(CLIENT), 1795900879, encapsulated=False)
    assert (shown.role, shown.virtual_address, shown.ppk) == (Role.CLIENT, "10.99.0.7", True)
    assert shown.ike_suite == "aes256gcm16-prfsha256-x25519"
    assert shown.child_suite == "ESP aes256gcm16"
    assert (shown.bytes_in, shown.bytes_out, shown.established_seconds) == (84, 168, 10)
    assert version_of(RECORDED) == "4.10"


def test_all_sas_of_a_tunnel_are_counted_and_a_further_one_is_seen():
    """A peer may negotiate again and again, with IPsec SAs or without."""
    (tunnel,) = tunnels(RECORDED).values()
    further = RECORDED + "".join(
        line.replace("#9", "#11").replace("#8", "#10") + "\n"
        for line in RECORDED.splitlines()
        if line.startswith("000 #")
    )
    (more,) = tunnels(further).values()
    assert (len(more.ike_sas), len(more.child_sas)) == (2, 2)
    (alone,) = tunnels(RECORDED + further.splitlines()[-1].replace("#11", "#12")).values()
    assert (len(alone.ike_sas), len(alone.child_sas)) == (2, 1)
    assert len({each.newest for each in (tunnel, more, alone)}) == 3


def test_a_damaged_file_makes_no_other_tunnel_of_what_the_daemon_has():
    """Else it would be ended, and the peer be said to have changed it."""
    recorded = RECORDED.replace(": 0.0.0.0/0===", ": 10.99.0.7/32===")
    shown = status(tunnels(recorded)["carnet-7"], None, 0, encapsulated=False)
    assert (shown.role, shown.virtual_address) == (Role.CLIENT, "10.99.0.7")
    assert is_installed(shown, AGREED)
    for here, there, told in (
        ("10.20.0.0/16", "10.99.0.7/32", (Role.TARGET, "10.99.0.7")),
        ("10.99.0.7/32", "10.20.0.1/32", (Role.TARGET, None)),
        (None, None, (Role.TARGET, None)),
        ("fd99::7/128", "?", (Role.CLIENT, "fd99::7")),
    ):
        tunnel = Tunnel("carnet-7", selectors=(here, there))
        found = status(tunnel, None, 0, encapsulated=False)
        assert (found.role, found.virtual_address) == told


def test_ipv6_is_read_too():
    (tunnel,) = tunnels(RECORDED_V6).values()
    assert tunnel.established
    assert (tunnel.protocol, tunnel.spi) == ("ESP", "fb8534c3")
    assert (tunnel.local_address, tunnel.remote_address) == ("fd77::2", "fd51::2")


def test_with_ikev1_keys_are_by_address_and_target_has_no_name():
    target, client = old(TARGET), old(CLIENT)
    assert secrets(target) == f"198.51.100.2 %any @target-7 : PSK {PSK}\n"
    assert secrets(client) == f"@client-7 198.51.100.2 : PSK {PSK}\n"
    assert "leftid=198.51.100.2\n    right=%any\n    rightid=%any\n" in configuration(target)
    assert "leftid=@client-7\n    right=198.51.100.2\n    rightid=198.51.100.2\n" in (
        configuration(client)
    )
    for spec in (target, client):
        assert "ikev2=no" in configuration(spec)
        assert "10.99.0.7/32\n" in configuration(spec)


def test_whoever_may_come_with_ikev1_is_found_among_all_connections():
    assert open_main_mode(RECORDED_IKEV1) == ["carnet-7", "others"]
    assert open_main_mode(RECORDED) == []
    assert (ike_versions_of(RECORDED_IKEV1), ike_versions_of(RECORDED)) == ((2, 1), (2,))


def test_a_whole_tunnel_with_ikev1_has_no_shortfall():
    tunnel = tunnels(RECORDED_IKEV1)["carnet-7"]
    assert shortfalls(old(TARGET), tunnel, encapsulated=False) == []
    assert status(tunnel, None, 0, encapsulated=False).child_suite == "ESP aes256-sha256-modp2048"
    named = tunnels(RECORDED_IKEV1.replace("198.51.100.2...", "198.51.100.2[@t]..."))["carnet-7"]
    assert shortfalls(old(TARGET), named, encapsulated=False) == [
        "it is not between the two identities"
    ]


def test_a_whole_tunnel_has_no_shortfall():
    assert shortfalls(CLIENT, tunnels(RECORDED)["carnet-7"], encapsulated=True) == []


@pytest.mark.parametrize(
    ("said", "instead", "shortfall"),
    [
        ("IKE SA #9", "IKE SA #7", "it is not established"),
        ("(established Child SA)", "(rekeying)", "it is not established"),
        ("[1]:   policy: IKEv2", "[1]:   policy: IKEv1", "it is not IKEv2"),
        ("[@target-7]", "[@another]", "it is not between the two identities"),
        ("newest: AES_GCM_16_256-HMAC_SHA2_256", "newest: AES_CBC_256-HMAC_SHA1", "IKE algorithms"),
        ("PPK_ALLOW+PPK_INSIST", "PPK_ALLOW", "it has no post-quantum key"),
        ("esp.", "ah.", "it is not ESP"),
        ("newest: AES_GCM_16_256-NONE", "newest: NULL-HMAC_SHA1_96", "ESP algorithms"),
        ("+TUNNEL", "", "its mode is another"),
        ("===10.20.0.0/16", "===10.20.0.0/24", "its networks are others"),
        ("10.99.0.7/32===", "10.99.0.8/32===", "its networks are others"),
    ],
)
def test_whatever_is_less_than_agreed_is_found(said, instead, shortfall):
    assert said in RECORDED
    tunnel = tunnels(RECORDED.replace(said, instead)).get("carnet-7")
    found = shortfalls(CLIENT, tunnel, encapsulated=False)
    assert [each for each in found if shortfall in each]


AGREED = Leading(
    objective=CLIENT.objective,
    mode=CLIENT.mode,
    ike_version=2,
    targets=frozenset({"198.51.100.2"}),
    networks=frozenset(CLIENT.remote_networks),
    virtual_address="10.99.0.7",
)


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("===10.20.0.0/16; erouted", "===10.20.0.0/29; erouted"),
        ("===10.20.0.0/16; erouted", "===10.20.0.1/16; erouted"),
        ("===10.20.0.0/16; erouted", "===10.20.0.0/99; erouted"),
        ("===10.20.0.0/16; erouted", "; erouted"),
        ("[@target-7]===10.20.0.0/16; erouted", "[@target-7]:17/53===10.20.0.0/16; erouted"),
        ("10.99.0.7/32===192.168.77.2[@client-7,+MC+S=C]", "10.99.0.7/32===x[@client-7]:6/0"),
        ("[1]: 10.99.0.7/32===", "[1]: 0.0.0.0/0==="),
        ("[1]: 10.99.0.7/32===", "[1]: ?==="),
    ],
)  # fmt: skip
def test_what_is_led_into_a_tunnel_is_told_and_less_is_another(said, instead):
    """The peer may narrow it when the tunnel comes up, and with each SA after the first."""
    assert said in RECORDED
    head = Head(Role.CLIENT, "10.99.0.7", CLIENT.remote_networks)
    # As where the connection itself, which is listed before what came of it, leads there.
    recorded = RECORDED.replace(": 0.0.0.0/0===", ": 10.99.0.7/32===")
    whole, less = (
        status(tunnels(text)["carnet-7"], head, 0, encapsulated=False)
        for text in (recorded, recorded.replace(said, instead))
    )
    assert (whole.local_selectors, whole.remote_selectors) == (("10.99.0.7/32",), ("10.20.0.0/16",))
    assert (is_installed(whole, AGREED), is_installed(less, AGREED)) == (True, False)
    changed = tunnels(RECORDED.replace(said, instead))["carnet-7"]
    assert "its networks are others" in shortfalls(CLIENT, changed, encapsulated=False)


def test_nat_is_found_where_it_breaks_the_tunnel():
    spec = ah_of(CLIENT)
    floated = tunnels(RECORDED.replace(":500 STATE", ":4500 STATE"))["carnet-7"]
    plain = tunnels(RECORDED)["carnet-7"]
    said = "there is NAT on the way, which it does not survive"
    assert said in shortfalls(spec, floated, encapsulated=False)
    assert said in shortfalls(spec, plain, encapsulated=True)
    assert said not in shortfalls(spec, plain, encapsulated=False)


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("", "does not answer IKE on UDP ports 500"),
        ("received anti-DDOS COOKIE notify response", "half a minute"),
        ("sent IKE_AUTH request {cipher=AES_GCM_16_256}", "then fell silent"),
        ("sent IKE_AUTH request to 198.51.100.2:4500", "not on UDP port 4500"),
        ('106 "carnet-7" #1: sent Main Mode I3', "then fell silent"),
        ('115 "carnet-7" #2: sent Quick Mode request', "then fell silent"),
    ],
)
def test_of_a_silence_is_said_when_it_began(last, sentence):
    error = not_up(f"181 #1: sent IKE_SA_INIT request to 198.51.100.2:500\n{last}")
    assert isinstance(error, IKESilentError)
    assert sentence in error.sentence


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "sent IKE_AUTH request\n#1: authentication failed: AUTHENTICATION_FAILED",
            IKERefusedError,
        ),
        ("003 #2: CREATE_CHILD_SA failed with TS_UNACCEPTABLE", IKERefusedError),
        (
            "181 #1: sent IKE_SA_INIT request to 198.51.100.2:500\n010 retransmission",
            IKESilentError,
        ),
        ("", IPsecError),
    ],
)
def test_a_negotiation_that_failed_is_told_in_one_sentence(said, kind):
    error = not_up(said)
    assert type(error) is kind
    assert error.sentence.endswith(".")


def test_a_socket_without_a_daemon_is_no_daemon_that_has_no_tunnels(tmp_path):
    socket_path = tmp_path / "pluto.ctl"
    with pytest.raises(IPsecError, match="does not answer"):
        Tools(socket_path).whack("--status")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path))
    with pytest.raises(IPsecError, match="does not answer"):
        Tools(socket_path).whack("--status")


def test_a_daemon_that_lives_without_its_socket_is_silent_and_not_gone(tmp_path):
    socket_path = tmp_path / "pluto.ctl"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        socket_path.unlink()
        with pytest.raises(DaemonSilentError, match=r"runs, .* restart it"):
            Tools(socket_path).whack("--status")
    with pytest.raises(DaemonGoneError, match="start it"):
        Tools(socket_path).whack("--status")


def test_what_ends_with_a_silent_daemon_asks_it_briefly_after_the_first_time(tmp_path, monkeypatch):
    waited = []

    def run(command, timeout, **_):
        waited.append(timeout)
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    driver = Libreswan(tmp_path / "pluto.ctl")
    for end in (driver.take_leave, driver.down, driver.take_leave):
        with pytest.raises(IPsecError, match="to answer"):
            end("carnet-00")
    assert waited == [ANSWER_TIME_LIMIT, BRIEF_SECONDS, BRIEF_SECONDS]


@pytest.mark.parametrize(
    ("said", "targets"),
    [
        (RECORDED, {"198.51.100.2"}),
        (RECORDED.replace("198.51.100.2", "%any"), set()),
        ("", set()),
    ],
)
def test_where_tunnels_lead_is_told_of_what_is_live_and_what_is_left(
    tmp_path, monkeypatch, said, targets
):
    driver, written = Libreswan(tmp_path / "pluto.ctl"), tmp_path / "ipsec.conf"
    written.write_text(configuration(replace(CLIENT, remote_identity="Target-7")))
    monkeypatch.setattr(driver._tools, "whack", lambda *_: said)
    monkeypatch.setattr(driver._tools, "names", lambda: frozenset({"carnet-7"}))
    monkeypatch.setattr(driver._tools, "connection", lambda _: written)
    inner = frozenset({CLIENT.virtual_address})
    called = frozenset({"client-7", "target-7", "ppk-7"})
    led = Lead(frozenset(targets), frozenset(CLIENT.remote_networks), inner, called)
    assert driver.leads() == {"carnet-7": led}
    written.write_text(configuration(replace(TARGET, local_addresses=("198.51.100.2",))))
    assert driver.leads()["carnet-7"].inner == frozenset()


@pytest.mark.parametrize(("said", "known"), [(RECORDED, {"carnet-7"}), ("", set())])
def test_of_what_a_file_is_left_of_a_daemon_started_anew_knows_nothing(
    tmp_path, monkeypatch, said, known
):
    driver = Libreswan(tmp_path / "pluto.ctl")
    monkeypatch.setattr(driver._tools, "whack", lambda *_: said)
    monkeypatch.setattr(driver._tools, "names", lambda: {"carnet-7"})
    assert (driver.installed(), driver.remembered()) == ({"carnet-7"}, known)


def test_an_address_goes_with_the_last_tunnel_that_has_it(tmp_path, monkeypatch):
    driver, gone = Libreswan(tmp_path / "pluto.ctl"), []

    def remove(address, others, at):
        assert at == {"carnet-7": ["eth0", "wlan0"], "carnet-8": []}[ends]
        gone.append(not any(address in each.inner for each in others))
        return gone[-1]

    monkeypatch.setattr(inner_address, "remove", remove)
    monkeypatch.setattr(driver._tools, "whack", lambda *_: "")
    driver._tools.directory.mkdir()
    for name in ("carnet-7", "carnet-8"):
        driver._tools.connection(name).write_text(configuration(CLIENT))
    for interface in ("eth0", "wlan0", "eth0"):
        driver._tools.note_interface("carnet-7", interface)
    ends = "carnet-7"
    driver.down(ends)
    assert gone == [False, False]
    ends = "carnet-8"
    driver.down(ends)
    assert gone == [False, False, True]
    assert list(driver._tools.directory.iterdir()) == []


@pytest.mark.parametrize("missing", [["route"], []], ids=["gone", "there"])
def test_routes_that_went_with_their_link_are_set_again(tmp_path, monkeypatch, missing):
    driver, told = Libreswan(tmp_path / "pluto.ctl"), []

    def ip(*arguments, said=""):
        told.extend(said.splitlines())
        way = '[{"dev": "wlan0", "gateway": "192.168.77.1"}]'
        return subprocess.CompletedProcess(arguments, 0, way, "")

    stand_in(monkeypatch, ip)
    monkeypatch.setattr(inner_address.routes, "into_tunnel", lambda *_: missing)
    monkeypatch.setattr(driver._tools, "whack", lambda *_: RECORDED)
    driver._tools.directory.mkdir()
    driver._tools.connection("carnet-7").write_text(configuration(CLIENT))
    driver.lead_again("carnet-7")
    assert told == (["address replace 10.99.0.7/32 dev wlan0", "route"] if missing else [])
    assert driver._tools.interfaces("carnet-7") == ["wlan0"]
    told.clear()
    driver._tools.connection("carnet-7").write_text(
        configuration(replace(TARGET, local_addresses=("198.51.100.2",)))
    )
    driver.lead_again("carnet-7")
    driver.lead_again("carnet-8")
    assert told == []


def test_secrets_go_nowhere_but_into_memory(tmp_path):
    assert is_in_memory("/dev/shm")  # noqa: S108
    assert not is_in_memory("/nowhere")
    assert not is_in_memory("/proc")
    with pytest.raises(IPsecError, match="no file system in memory"):
        Tools(type(tmp_path)("/proc/pluto.ctl")).make_directory()

"""racoon and Windows as Target meets them: an IKEv1 peer with just what was rendered for each.

Neither can run here. So strongSwan is configured from the parsed files, with their
algorithms, addresses, identity and mode, and what comes up must carry packets.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from carnet.ipsec import racoon_files
from carnet.ipsec.vici_link import text
from carnet.ipsec.windows_script import beginning
from carnet.objectives import Objective
from target_agent.proposals import IKEV1_PROFILES, Profile
from tests.guest.addresses import BY_VERSION
from tests.guest.gateways import VIRTUAL, end, ends_of, inside, run_in_network
from tests.lab.conftest import Ends
from tests.lab.test_ikev1 import await_standing
from tests.unit.powershell import commands
from tests.unit.racoon_grammar import parse_conf, parse_setkey, words

HERE = BY_VERSION[4].client
OFFERED = IKEV1_PROFILES[Profile.MODERN]

GROUPS = {
    "14": "modp2048",
    "15": "modp3072",
    "DH14": "modp2048",
    "DH19": "ecp256",
    "DH20": "ecp384",
}
CIPHERS = {"aes 256": "aes256", "AES256": "aes256", "AESGCM256": "aes256gcm16"}


@dataclass(frozen=True)
class Peer:
    """What such an implementation was told, in strongSwan's words."""

    address: str
    key: bytes
    ike: Sequence[str]
    mode: str
    suites: Mapping[str, str]
    """By protocol; of two, which are one bundle, the inner one first."""
    near: str
    far: str


def ends(objective, mode):
    """Both ends of a tunnel as Target offers it to whoever has IKEv1 alone.

    AH with ESP it offers to nobody; what it would propose are its suites of each.
    """
    made = ends_of(objective, mode, ppk=False)
    proposed = {
        "ike_version": 1,
        "ike_proposals": OFFERED.ike,
        "esp_proposals": () if objective is Objective.AH else OFFERED.esp,
        "ah_proposals": () if objective is Objective.ESP else OFFERED.ah,
    }
    return Ends(replace(made.client, **proposed), replace(made.target, **proposed))


def as_racoon(spec):
    """What racoon.conf, psk.txt and the policies come to."""
    files = racoon_files.files(spec, HERE, f"0x{spec.psk.hex()}")
    conf = parse_conf(files.racoon_conf)
    address, key = files.psk_txt.split()
    (sainfo,) = conf.find_data("sainfo")
    (out, _) = parse_setkey(files.setkey).find_data("add")
    rules = [[str(each) for each in rule.children[:2]] for rule in out.find_data("rule")]
    ike = [
        f"{CIPHERS[words(each, 'encryption')[0]]}-{words(each, 'hash')[0]}"
        f"-{GROUPS[words(each, 'group')[0]]}"
        for each in conf.find_data("proposal")
    ]
    integrity = words(sainfo, "integrity")[0].removeprefix("hmac_")
    ciphers = {"esp": CIPHERS.get(words(sainfo, "encryption")[0], ""), "ah": ""}
    group = GROUPS[words(sainfo, "group")[0]]
    suites = {
        protocol: "-".join(filter(None, (ciphers[protocol], integrity, group)))
        for protocol, _ in rules
    }
    near, far = (
        "/".join(filter(None, each.children)) for each in list(out.find_data("selector"))[:2]
    )
    return Peer(address, bytes.fromhex(key[2:]), ike, rules[0][1], suites, near, far)


def as_windows(spec):
    """What the cmdlets come to; the key comes beside the script."""
    found = {each.name: each for each in commands(beginning(spec))}
    main = [x for x in commands(beginning(spec)) if x.name == "New-NetIPsecMainModeCryptoProposal"]
    ike = [
        f"{CIPHERS[each.value('-Encryption')]}-{each.value('-Hash').lower()}"
        f"-{GROUPS[each.value('-KeyExchange')]}"
        for each in main
    ]
    rule = found["New-NetIPsecRule"]
    quick = found["New-NetIPsecQuickModeCryptoProposal"]
    group = found["New-NetIPsecQuickModeCryptoSet"].value("-PerfectForwardSecrecyGroup")
    protocol, mode = quick.value("-Encapsulation").lower(), rule.value("-Mode").lower()
    integrity = quick.value("-AHHash" if protocol == "ah" else "-ESPHash").lower()
    cipher = CIPHERS.get(quick.value("-Encryption"), "")
    suite = "-".join(
        filter(None, (cipher, "" if "gmac" in integrity else integrity, GROUPS[group]))
    )
    near = rule.value("-LocalAddress") if mode == "tunnel" else HERE
    far = rule.value("-RemoteAddress")
    address = found["New-NetIPsecMainModeRule"].value("-RemoteAddress")
    return Peer(address, spec.psk, ike, mode, {protocol: suite}, near, far)


def connection(name, peer):
    """The connection of such a peer."""
    child = {"mode": peer.mode}
    child |= {f"{protocol}_proposals": [suite] for protocol, suite in peer.suites.items()}
    if peer.mode == "tunnel":
        child |= {"local_ts": [peer.near], "remote_ts": [peer.far]}
    return {
        "version": "1",
        "remote_addrs": [peer.address],
        "proposals": peer.ike,
        # Both name themselves by their addresses, and take no other name from Target.
        "local": {"auth": "psk", "id": HERE},
        "remote": {"auth": "psk", "id": peer.address},
        "children": {name: child},
    }


def load(gateway, name, key, connection):
    owners = [HERE, BY_VERSION[4].target]
    with gateway.session() as session:
        session.load_shared({"id": name, "type": "IKE", "data": key, "owners": owners})
        session.load_conn({name: connection})


def initiate(client, name, peer):
    load(client, name, peer.key, connection(name, peer))
    with client.session() as session:
        list(session.initiate({"ike": name, "child": name, "timeout": "9000"}))


@pytest.fixture
def own_address(world):
    """What such a peer sets by itself, and leaves alone in transport mode."""
    run_in_network(world.client, "ip", "address", "replace", f"{VIRTUAL[4]}/32", "dev", "lo")
    yield
    run_in_network(world.client, "ip", "address", "flush", "dev", "lo", "to", f"{VIRTUAL[4]}/32")


def fits(world, client, target, peer, both):
    """Bring up the tunnel of such a peer, and see that it carries packets."""
    address = both.client.virtual_address
    goal = BY_VERSION[4].target if address is None else BY_VERSION[4].server
    with inside(target):
        target.driver.install(both.target)
    initiate(client, both.name, peer(both.client))
    await_standing(target, both.name)
    with inside(target):
        assert target.driver.confirm(both.target).established
        target.driver.forget_secrets(both.name)
    assert echoes(world, client.machine, address or HERE, goal)
    (status,) = target.driver.status()
    assert status.bytes_in > 0
    assert status.bytes_out > 0
    for gateway in (client, target):
        end(gateway, both.name)


def protocols_of(client, target, name, peer):
    """Bring up the tunnel of such a peer with a Target of just its words; return what protects.

    Of what Target itself would load nothing is needed: it has no words for a bundle.
    """
    mirrored = connection(name, replace(peer, near=peer.far, far=peer.near))
    mirrored |= {"remote_addrs": [HERE], "local": mirrored["remote"], "remote": mirrored["local"]}
    load(target, name, peer.key, mirrored)
    initiate(client, name, peer)
    await_standing(target, name)
    with target.session() as session:
        sas = [text(each)[name] for each in session.list_sas({"ike": name})]
    for gateway in (client, target):
        end(gateway, name)
    return [child["protocol"] for each in sas for child in each["child-sas"].values()]


def echoes(world, machine, source, goal):
    """Whether a datagram comes there, and another comes back."""
    other = world.target if goal == BY_VERSION[4].target else world.server
    with other.network():
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with machine.network():
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listening, asking:
        for each, bound in ((listening, goal), (asking, source)):
            each.settimeout(4)
            each.bind((bound, 7000))
        asking.sendto(b"there", (goal, 7000))
        heard, asker = listening.recvfrom(99)
        listening.sendto(b"back", asker)
        return (heard, asker[0], asking.recv(99)) == (b"there", source, b"back")

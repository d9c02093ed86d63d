"""AH and ESP as one: what the kernel is given, what it drops, rekeying, and the end."""

import re
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import bundle
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan_parts import reqids
from carnet.ipsec.vici_link import Events
from carnet.objectives import Objective
from lab.network import ROUTED, ROUTER_TO_CLIENT
from lab.world import World
from tests.guest.forged import datagram, newest_received, outgoing_ah, send_with_ah_alone
from tests.guest.gateways import VIRTUAL, connect, end, ends_of, inside, install
from tests.guest.offices import BY_VERSION
from tests.lab.conftest import Ends
from tests.lab.test_strongswan import in_background

LISTEN = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as listening:
    listening.bind((sys.argv[1], 7000))
    print("listens", flush=True)
    while True:
        print(listening.recv(99).decode(), flush=True)
"""

BOTH = Objective.AH_ESP


@pytest.fixture(scope="module")
def world():
    with World(ROUTED) as made:
        yield made


@pytest.fixture(scope="module")
def listener(world):
    """Who hears what reaches the machine behind Target, and Target itself."""
    found = {}
    for machine, address in (
        (world.server, BY_VERSION[4].server),
        (world.target, BY_VERSION[4].target),
    ):
        found[address] = machine.start(
            ["python", "-u", "-c", LISTEN, address], log=f"heard-{address}.log"
        )
        found[address].wait_for_line("listens")
    return found


@pytest.fixture
def tunnel(client, target, request):
    """A tunnel of AH and ESP in the mode that the test names."""
    ends = ends_of(BOTH, request.param)
    connect(client, target, ends)
    yield ends
    for gateway in (client, target):
        end(gateway, ends.name)


in_both_modes = pytest.mark.parametrize("tunnel", Mode, indirect=True)


def peer_of(ends: Ends) -> str:
    """Whom the tunnel leads to."""
    addresses = BY_VERSION[4]
    return addresses.server if ends.client.mode is Mode.TUNNEL else addresses.target


def say(client, word: str, address: str) -> None:
    with inside(client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as saying:
        saying.sendto(word.encode(), (address, 7000))


def ip(gateway, *arguments: str, said: str | None = None) -> str:
    with inside(gateway):
        return subprocess.run(
            ["ip", *arguments], input=said, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def policies(gateway) -> str:
    return ip(gateway, "xfrm", "policy", "list")


def drops(gateway) -> dict[str, int]:
    """The kernel's own count of what it dropped, by reason."""
    with inside(gateway):
        lines = Path("/proc/thread-self/net/xfrm_stat").read_text().splitlines()
    return {name: int(count) for name, count in map(str.split, lines)}


def templates(gateway, ends: Ends, *kept: str) -> None:
    """Have a machine protect what it sends with no more than these, by the very same SAs."""
    spec = ends.client
    esp, ah = reqids(ends.name)
    outer = f"src {BY_VERSION[4].client} dst {BY_VERSION[4].target}"
    lines = {
        "esp": f"tmpl {outer} proto esp reqid {esp} mode {spec.mode}",
        "ah": f"tmpl {outer} proto ah reqid {ah} mode transport",
    }
    if spec.mode is Mode.TUNNEL:
        selector = f"src {VIRTUAL[4]}/32 dst {BY_VERSION[4].network}"
    else:
        selector = outer
    rule = f"xfrm policy update {selector} dir out priority {bundle.PRIORITY} "
    rule += " ".join(lines[name] for name in kept)
    if spec.mode is Mode.TUNNEL:
        # What is not protected would not find its way out by the tunnel's own route.
        way = "dev eth0" if kept else f"via {ROUTER_TO_CLIENT}"
        rule += f"\nroute replace {BY_VERSION[4].network} {way} src {VIRTUAL[4]} proto 202"
    ip(gateway, "-batch", "-", said=f"{rule}\n")


@in_both_modes
def test_what_lacks_a_half_or_both_is_dropped_and_counted(client, target, listener, tunnel):
    address = peer_of(tunnel)
    heard = listener[address]
    say(client, f"whole-{tunnel.name}", address)
    heard.wait_for_line(f"whole-{tunnel.name}")
    # Inside a tunnel the kernel has no SA for what has AH alone: see the next test.
    alone = () if tunnel.client.mode is Mode.TUNNEL else (("ah",),)
    for kept in (("esp",), *alone, ()):
        before = drops(target)
        templates(client, tunnel, *kept)
        say(client, f"forged-{'-'.join(kept)}-{tunnel.name}", address)
        templates(client, tunnel, "esp", "ah")
        # What comes after it has passed, so the one before it never will.
        say(client, f"after-{'-'.join(kept)}-{tunnel.name}", address)
        heard.wait_for_line(f"after-{'-'.join(kept)}-{tunnel.name}")
        grown = {name for name, count in drops(target).items() if count > before[name]}
        assert grown == {"XfrmInTmplMismatch"}, kept
    assert "forged" not in heard.output()


@pytest.mark.parametrize("tunnel", [Mode.TUNNEL], indirect=True)
def test_inside_a_tunnel_what_lacks_esp_is_verified_and_goes_nowhere(
    client, target, listener, tunnel
):
    v4 = BY_VERSION[4]
    heard = listener[v4.server]
    say(client, f"whole-{tunnel.name}", v4.server)
    heard.wait_for_line(f"whole-{tunnel.name}")
    sa = outgoing_ah(ah_sa(client))
    inner = datagram(VIRTUAL[4], v4.server, 7000, f"forged-ah-{tunnel.name}".encode())
    with inside(client):
        forged = send_with_ah_alone(sa, v4.client, v4.target, inner)
    say(client, f"after-ah-{tunnel.name}", v4.server)
    heard.wait_for_line(f"after-ah-{tunnel.name}")
    assert f"forged-ah-{tunnel.name}" not in heard.output()
    # It was no bad AH that has kept it out.
    assert newest_received(ah_sa(target)) == forged


def ah_sa(gateway) -> str:
    """The SA of the AH half by which the Client sends."""
    v4 = BY_VERSION[4]
    return ip(gateway, "xfrm", "state", "list", "src", v4.client, "dst", v4.target, "proto", "ah")


def test_several_networks_share_the_two_halves(world, client, target):
    second, networks = "10.20.128.10", ("10.20.0.0/24", "10.20.128.0/24")
    world.server.run(["ip", "address", "replace", f"{second}/16", "dev", "eth0"])
    made = ends_of(BOTH, Mode.TUNNEL)
    ends = Ends(
        replace(made.client, remote_networks=networks),
        replace(made.target, local_networks=networks),
    )
    connect(client, target, ends)
    for address in (BY_VERSION[4].server, second):
        with world.server.network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
            listening.bind((address, 7001))
            listening.settimeout(4)
            with inside(client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as saying:
                saying.sendto(b"hello", (address, 7001))
            assert listening.recvfrom(99)[1][0] == VIRTUAL[4]
    for gateway in (client, target):
        end(gateway, ends.name)


@in_both_modes
@pytest.mark.parametrize("half", ["esp", "ah"])
def test_either_half_rekeys_from_either_side(client, target, listener, tunnel, half):
    address = peer_of(tunnel)
    for gateway in (client, target):
        before = spis(gateway)
        with Events(gateway.charon.vici, ["child-rekey"], 10) as events:
            with gateway.session() as session:
                session.rekey({"child": f"{tunnel.name}/{half}"})
            assert f"{tunnel.name}/{half}" in events.next()
        assert spis(gateway) - before
        word = f"{half}-{gateway.machine.name}-{tunnel.name}"
        say(client, word, address)
        listener[address].wait_for_line(word)
        with inside(gateway):
            assert gateway.driver.confirm(end_at(gateway, client, tunnel)).established


def end_at(gateway, client, ends: Ends):
    return ends.client if gateway is client else ends.target


def spis(gateway) -> set[str]:
    return set(re.findall(r"spi (0x[0-9a-f]+)", ip(gateway, "xfrm", "state")))


@pytest.mark.parametrize("inner", [4, 6])
def test_the_end_of_a_tunnel_leaves_no_policy_and_no_route(client, target, inner):
    ends = ends_of(BOTH, Mode.TUNNEL, inner=inner)
    before = policies(client), policies(target), routes(client), routes(target)
    connect(client, target, ends)
    assert policies(client).count(f"priority {bundle.PRIORITY}") == 3
    assert f"src {VIRTUAL[inner]}" in routes(client)
    for gateway in (client, target):
        end(gateway, ends.name)
        assert gateway.left() == []
    assert (policies(client), policies(target), routes(client), routes(target)) == before


def routes(gateway) -> str:
    return ip(gateway, "route") + ip(gateway, "-6", "route")


def test_a_newer_tunnel_to_the_same_peer_keeps_what_it_shares_with_the_older(client, target):
    older, newer = ends_of(BOTH, Mode.TRANSPORT), ends_of(BOTH, Mode.TRANSPORT)
    connect(client, target, older)
    connect(client, target, newer)
    for gateway in (client, target):
        end(gateway, older.name)
        with inside(gateway):
            assert bundle.directions(reqids(newer.name)[0]) == {"in", "out", "fwd"}
            assert gateway.driver.confirm(end_at(gateway, client, newer)).established
    for gateway in (client, target):
        end(gateway, newer.name)


def test_what_the_daemon_does_with_policies_of_its_own_leaves_ours(client, target, listener):
    """It deletes by selector alone: an older ESP tunnel's end must not leave ours in clear."""
    older, newer = ends_of(Objective.ESP, Mode.TRANSPORT), ends_of(BOTH, Mode.TRANSPORT)
    connect(client, target, older)
    connect(client, target, newer)
    for gateway in (client, target):
        end(gateway, older.name)
        with inside(gateway):
            assert bundle.directions(reqids(newer.name)[0]) == {"in", "out", "fwd"}
    say(client, f"still-{newer.name}", BY_VERSION[4].target)
    listener[BY_VERSION[4].target].wait_for_line(f"still-{newer.name}")
    for gateway in (client, target):
        end(gateway, newer.name)


def test_policies_outlive_the_daemon_and_are_swept(client, target):
    ends = ends_of(BOTH, Mode.TUNNEL)
    connect(client, target, ends)
    client.charon.kill()
    assert f"priority {bundle.PRIORITY}" in policies(client)
    client.charon.start()
    with inside(client):
        client.driver.sweep(lambda: frozenset({ends.name}))
        assert bundle.directions(reqids(ends.name)[0])
        client.driver.sweep(frozenset)
    assert f"priority {bundle.PRIORITY}" not in policies(client)
    end(target, ends.name)


def test_a_half_that_ends_ends_the_tunnel(client, target):
    ends = ends_of(BOTH, Mode.TRANSPORT)
    events = client.driver.watch()
    connect(client, target, ends)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.UP)
    with target.session() as session:
        list(session.terminate({"ike": f"{ends.name}/ah"}))
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.DOWN)
    client.driver.close()
    with inside(client), pytest.raises(IPsecError, match="its AH half is not established"):
        client.driver.confirm(ends.client)
    assert client.left() == []
    end(target, ends.name)


@pytest.mark.parametrize("lacking", [Objective.ESP, Objective.AH])
def test_a_target_with_one_half_only_gets_no_tunnel(client, target, lacking):
    ends = ends_of(BOTH, Mode.TRANSPORT)
    changes = {"esp_proposals": ()} if lacking is Objective.ESP else {"ah_proposals": ()}
    alone = Objective.AH if lacking is Objective.ESP else Objective.ESP
    one_half = replace(ends.target, objective=alone, ah_half=None, **changes)
    install(client, target, Ends(ends.client, one_half))
    with inside(client), pytest.raises(IPsecError):
        client.driver.up(ends.client)
    assert client.left() == []
    assert f"priority {bundle.PRIORITY}" not in policies(client)
    end(target, ends.name)


@pytest.mark.parametrize("half", ["psk", "ppk"])
def test_each_half_is_authenticated_by_keys_of_its_own(client, target, half):
    ends = ends_of(BOTH, Mode.TRANSPORT)
    other = replace(ends.target.ah_half, **{half: b"?" * 32})
    install(client, target, Ends(ends.client, replace(ends.target, ah_half=other)))
    with inside(client), pytest.raises(IPsecError, match="AUTHENTICATION_FAILED"):
        client.driver.up(ends.client)
    assert client.left() == []
    end(target, ends.name)


@pytest.mark.parametrize(
    "change",
    [
        {"ah_half": None},
        {"ah_proposals": ()},
        {"esp_proposals": ()},
        {"ah_proposals": ("md5",)},
        {"objective": Objective.ESP, "ah_half": None},
        {"objective": Objective.NATIVE, "ah_half": None},
    ],
    ids=str,
)
def test_what_is_no_whole_bundle_is_refused_before_anything_is_loaded(client, change):
    with pytest.raises(IPsecError, match="nothing is downgraded"):
        client.driver.install(replace(ends_of(BOTH, Mode.TRANSPORT).client, **change))
    assert client.left() == []


@pytest.mark.parametrize(
    ("objective", "proposals", "suite"),
    [
        (Objective.AH, {"ah_proposals": ("md5",)}, "AH md5"),
        (Objective.AH, {"ah_proposals": ("sha1",)}, "AH sha1"),
        (Objective.ESP, {"esp_proposals": ("3des-md5",)}, "ESP 3des-md5"),
    ],
)
def test_the_papers_suites_come_up_only_where_both_ends_were_told(
    client, target, objective, proposals, suite
):
    ends = ends_of(objective, Mode.TRANSPORT)
    weak = Ends(*(replace(spec, **proposals) for spec in (ends.client, ends.target)))
    for gateway, spec in ((client, weak.client), (target, weak.target)):
        with pytest.raises(IPsecError, match="weak algorithms"):
            gateway.driver.install(spec)
    told = Ends(*(replace(spec, allow_weak=True) for spec in (weak.client, weak.target)))
    install(client, target, told)
    assert client.driver.up(told.client).child_suite == suite
    end(client, ends.name)
    end(target, ends.name)


def test_without_ipsec_the_ike_sa_tells_where_the_client_is_and_when_she_goes(client, target):
    ends, before = ends_of(Objective.NATIVE, Mode.TRANSPORT), spis(client)
    events = target.driver.watch()
    connect(client, target, ends)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.UP)
    (status,) = target.driver.status()
    assert (status.remote_address, status.child_suite) == (BY_VERSION[4].client, "")
    assert status.established
    assert spis(client) == before
    end(client, ends.name)
    assert in_background(next, events)() == TunnelEvent(ends.name, Change.DOWN)
    target.driver.close()
    end(target, ends.name)

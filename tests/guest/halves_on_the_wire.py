"""AH and ESP as one, as packets: what the kernel is given, what it drops, and rekeying.

For test_two_halves, and its first part.
"""

import socket
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from carnet.ipsec import bundle
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan_parts import reqids
from carnet.ipsec.vici_link import Events
from carnet.objectives import Objective
from lab.capture import Capture
from lab.network import ROUTER_TO_CLIENT
from lab.waiting import TIME_LIMIT, wait_until
from tests.guest.addresses import BY_VERSION
from tests.guest.forged import (
    UDP,
    datagram,
    newest_received,
    outgoing_ah,
    send_with_ah_alone,
    udp,
)
from tests.guest.gateways import VIRTUAL, connect, end, end_at, ends_of, inside, ip, spis
from tests.guest.halves import BOTH, PORT, say
from tests.lab.conftest import Ends

MOST_NETWORKS = 32
"""That a tunnel leads to (docs/PROTOCOL.md)."""
IKE_FRAGMENT = "udp port 500 and udp[24] = 53 or udp port 4500 and udp[8:4] = 0 and udp[28] = 53"
"""IKE's next payload is an encrypted fragment (RFC 7383 section 2.5)."""


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
    heard.wait_for(f"whole-{tunnel.name}")
    # Inside a tunnel the kernel has no SA for what has AH alone: see the next test.
    alone = () if tunnel.client.mode is Mode.TUNNEL else (("ah",),)
    for kept in (("esp",), *alone, ()):
        before = drops(target)
        templates(client, tunnel, *kept)
        say(client, f"forged-{'-'.join(kept)}-{tunnel.name}", address)
        templates(client, tunnel, "esp", "ah")
        # What comes after it has passed, so the one before it never will.
        say(client, f"after-{'-'.join(kept)}-{tunnel.name}", address)
        heard.wait_for(f"after-{'-'.join(kept)}-{tunnel.name}")
        grown = {name for name, count in drops(target).items() if count > before[name]}
        assert grown == {"XfrmInTmplMismatch"}, kept
    assert not heard.has("forged")


@pytest.mark.parametrize("tunnel", [Mode.TUNNEL], indirect=True)
def test_inside_a_tunnel_what_lacks_esp_is_verified_and_goes_nowhere(
    client, target, listener, tunnel
):
    v4 = BY_VERSION[4]
    heard = listener[v4.server]
    say(client, f"whole-{tunnel.name}", v4.server)
    heard.wait_for(f"whole-{tunnel.name}")
    sa = outgoing_ah(ah_sa(client))
    inner = datagram(VIRTUAL[4], v4.server, PORT, f"forged-ah-{tunnel.name}".encode())
    with inside(client):
        forged = send_with_ah_alone(sa, v4.client, v4.target, inner)
    say(client, f"after-ah-{tunnel.name}", v4.server)
    heard.wait_for(f"after-ah-{tunnel.name}")
    assert not heard.has(f"forged-ah-{tunnel.name}")
    # It was no bad AH that has kept it out.
    assert newest_received(ah_sa(target)) == forged


@pytest.mark.parametrize("version", [4, 6])
def test_a_tunnels_ah_half_alone_leads_to_nothing_of_target_itself(
    client, target, listener, version
):
    """Whichever address it comes from: Target's own is not in the SA's selector."""
    ends, addresses = ends_of(BOTH, Mode.TUNNEL, outer=version, inner=version), BY_VERSION[version]
    heard = listener[addresses.target]
    connect(client, target, ends)
    sa = outgoing_ah(ah_sa(client, version))
    for source in (addresses.client, VIRTUAL[version]):
        before = drops(target)
        inner = udp(source, addresses.target, PORT, f"forged-{source}-{ends.name}".encode())
        with inside(client):
            forged = send_with_ah_alone(sa, source, addresses.target, inner, UDP)
        # Once verified it waits for its turn again, and what comes in clear may overtake it.
        wait_until(lambda: drops(target) != before, "the kernel to drop it")  # noqa: B023
        say(client, f"after-{source}-{ends.name}", addresses.target)
        heard.wait_for(f"after-{source}-{ends.name}")
        assert not heard.has(f"forged-{source}")
        # It was no bad AH that has kept it out.
        assert newest_received(ah_sa(target, version)) == forged
        sa = replace(sa, last=forged)
        grown = {name for name, count in drops(target).items() if count > before[name]}
        assert grown == {"XfrmInStateMismatch"}
    for gateway in (client, target):
        end(gateway, ends.name)


def ah_sa(gateway, version: int = 4) -> str:
    """The SA of the AH half by which the Client sends."""
    ends = BY_VERSION[version]
    which = ("src", ends.client, "dst", ends.target, "proto", "ah")
    return ip(gateway, "xfrm", "state", "list", *which)


@pytest.mark.parametrize("networks", [("10.20.0.0/24", "10.20.128.0/24"), ("0.0.0.0/0",)], ids=str)
def test_several_networks_share_the_two_halves(world, client, target, networks):
    """Or one that Target itself is in, which what carries the tunnel is not led to."""
    second = "10.20.128.10"
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


@contextmanager
def without_fragments(router):
    """Have a router let no fragment of IP pass."""
    rule = ["FORWARD", "-f", "-j", "DROP"]
    router.run(["iptables-legacy", "-A", *rule])
    try:
        yield
    finally:
        router.run(["iptables-legacy", "-D", *rule])


def test_large_ike_messages_pass_where_fragments_of_ip_do_not(world, client, target):
    """Those of many networks are longer than a packet, and IKE divides them itself."""
    networks = tuple(f"fd20:0:1:{number:x}::/64" for number in range(1, MOST_NETWORKS + 1))
    made = ends_of(Objective.ESP, Mode.TUNNEL, inner=6)
    ends = Ends(
        replace(made.client, remote_networks=networks),
        replace(made.target, local_networks=networks),
    )
    with without_fragments(world.router), Capture(world.router) as capture:
        connect(client, target, ends)
    assert capture.count(IKE_FRAGMENT) > 0
    for gateway in (client, target):
        end(gateway, ends.name)


@in_both_modes
@pytest.mark.parametrize("half", ["esp", "ah"])
def test_either_half_rekeys_from_either_side(client, target, listener, tunnel, half):
    address = peer_of(tunnel)
    for gateway in (client, target):
        before = spis(gateway)
        with Events(gateway.charon.vici, ["child-rekey"], TIME_LIMIT) as events:
            with gateway.session() as session:
                session.rekey({"child": f"{tunnel.name}/{half}"})
            assert f"{tunnel.name}/{half}" in events.next()
        assert spis(gateway) - before
        word = f"{half}-{gateway.machine.name}-{tunnel.name}"
        say(client, word, address)
        listener[address].wait_for(word)
        with inside(gateway):
            assert gateway.driver.confirm(end_at(gateway, client, tunnel)).established

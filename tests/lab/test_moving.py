"""The traveller moves to another network, behind another NAT, while she downloads."""

import hashlib
import json
import socket

import pytest

from carnet.ipsec.vici_link import open_session
from lab.network import CLIENT_ADDRESS, ROUTER_TO_CLIENT, SERVER_ADDRESS, WORK_NETWORK
from lab.waiting import wait_until
from tests.lab.offices import office_at_work

MEBIBYTE = 1 << 20
MTU = 1300
BIG = hashlib.shake_256(b"a long download").digest(8 * MEBIBYTE)

NEW_ADDRESS, NEW_ROUTER, NEW_OUTSIDE = "192.168.78.7", "192.168.78.1", "198.51.100.3"

ANOTHER_NETWORK = f"""
ip address add {NEW_ROUTER}/24 dev client
ip address add {NEW_OUTSIDE}/29 dev target
nft add rule ip carnet_lab postrouting ip saddr 192.168.78.0/24 oifname target snat to {NEW_OUTSIDE}
"""
"""What the router gives besides: another network for the client, with a NAT of its own."""

MOVE = f"""
ip address del {CLIENT_ADDRESS}/24 dev eth0
ip address add {NEW_ADDRESS}/24 dev eth0
ip route add default via {NEW_ROUTER}
"""
MOVE_BACK = f"""
ip address del {NEW_ADDRESS}/24 dev eth0
ip address add {CLIENT_ADDRESS}/24 dev eth0
ip route add default via {ROUTER_TO_CLIENT}
"""

ANEW = f"""
set -- $(ip route show {WORK_NETWORK} table 220)
while [ "$1" != mtu ]; do route="$route $1"; shift; done
ip route change $route table 220
"""


@pytest.fixture(scope="module")
def office(lane):
    short = {"# mtu = 1400": f"mtu = {MTU}"}
    with office_at_work(lane, pairs=4, watched=False, at_target=short) as made:
        (made.world.server.directory / "big.bin").write_bytes(BIG)
        made.world.router.run(["sh", "-ec", ANOTHER_NETWORK])
        yield made


@pytest.fixture(autouse=True)
def ended(office):
    yield
    assert office.carnet("disconnect").returncode == 0


def begin_download(office):
    """Return a connection of the client's that has asked for the long file."""
    with office.world.client.network():
        server = socket.create_connection((SERVER_ADDRESS, 80), 10)
    server.sendall(b"GET /big.bin HTTP/1.0\r\n\r\n")
    return server.makefile("rb")


def mtus(office):
    """Return the MTU of each route into the tunnel; None where it has none."""
    listed = office.world.client.run(["ip", "-json", "route", "show", "table", "all"]).stdout
    into = [each for each in json.loads(listed) if each["dst"] == WORK_NETWORK]
    return [metric.get("mtu") for each in into for metric in each.get("metrics", [{}])]


def ike_sa(charon):
    with open_session(charon.vici) as session:
        found = [ike_sa for each in session.list_sas() for ike_sa in each.values()]
    # One that was rekeyed is listed until its peer agrees that it is deleted.
    newest = max(found, key=lambda ike_sa: int(ike_sa["uniqueid"]))
    return {name: newest[name].decode() for name in ("uniqueid", "local-host", "remote-host")}


def test_a_download_goes_on_when_the_traveller_moves_behind_another_nat(office):
    assert office.carnet("connect").returncode == 0
    before, pairs = ike_sa(office.client_charon), office.valid_pairs()
    with begin_download(office) as download:
        while download.readline().strip():
            pass
        got = download.read(MEBIBYTE)
        office.world.client.run(["sh", "-ec", MOVE])
        got += download.read()
    assert got == BIG
    after = ike_sa(office.client_charon)
    assert (before["local-host"], after["local-host"]) == (CLIENT_ADDRESS, NEW_ADDRESS)
    # The same IKE_SA: it has moved, and was not made anew.
    assert after["uniqueid"] == before["uniqueid"]
    wait_until(
        lambda: ike_sa(office.target_charon)["remote-host"] == NEW_OUTSIDE, "Target to follow"
    )
    (status,) = json.loads(office.carnet("status", "--json").stdout)
    assert status["live"]["local_address"] == NEW_ADDRESS
    assert len(office.live_tunnels()) == 1
    assert office.valid_pairs() == pairs
    office.world.client.run(["sh", "-ec", MOVE_BACK])
    wait_until(lambda: ike_sa(office.client_charon)["local-host"] == CLIENT_ADDRESS, "the way back")


IKE_LOST = """
table ip lost {
    chain forward {
        type filter hook forward priority -10;
        udp dport { 500, 4500 } @th,64,32 0 drop
    }
}
"""
"""No IKE gets to Target on UDP port 4500; ESP does."""


def test_she_moves_while_a_message_of_her_ike_daemon_is_unanswered(office):
    """It goes on sending that from where she was, and does not move; so the tunnel comes back."""
    watched = office.configure_client("")
    assert office.carnet("connect", extra=watched).returncode == 0
    pairs, router = office.valid_pairs(), office.world.router
    router.run(["nft", "-f", "-"], stdin=IKE_LOST)
    with open_session(office.client_charon.vici) as session:
        (name,) = {name for each in session.list_sas() for name in each}
        session.rekey({"child": name})
    wait_until(lambda: is_waited_for(office.client_charon), "a message on its way")
    office.world.client.run(["sh", "-ec", MOVE])
    router.run(["nft", "delete", "table", "ip", "lost"])
    wait_until(lambda: stands_at(office, NEW_ADDRESS), "the tunnel to come back")
    with begin_download(office) as download:
        assert download.readline().split()[1] == b"200"
    assert office.valid_pairs() == pairs
    office.world.client.run(["sh", "-ec", MOVE_BACK])
    wait_until(lambda: stands_at(office, CLIENT_ADDRESS), "the way back")


def is_waited_for(charon):
    with open_session(charon.vici) as session:
        return any(sa.get("tasks-active") for each in session.list_sas() for sa in each.values())


def stands_at(office, address):
    return [
        each["live"]["local_address"]
        for each in json.loads(office.carnet("status", "--json").stdout)
        if each["up"]
    ] == [address]


def test_packets_stay_as_short_as_target_wants_them(office):
    """An IKE daemon that sets its route anew sets it without the MTU."""
    watched = office.configure_client("")
    assert office.carnet("connect", extra=watched).returncode == 0
    assert mtus(office) == [MTU]
    office.world.client.run(["sh", "-ec", MOVE])
    wait_until(lambda: ike_sa(office.client_charon)["local-host"] == NEW_ADDRESS, "the move")
    wait_until(lambda: mtus(office) == [MTU], "the MTU after the move")
    for _ in ("as the agent begins", "as it watches"):
        office.world.client.run(["sh", "-ec", ANEW])
        wait_until(lambda: mtus(office) == [MTU], "the MTU on the new route")
    office.world.client.run(["sh", "-ec", MOVE_BACK])
    wait_until(lambda: ike_sa(office.client_charon)["local-host"] == CLIENT_ADDRESS, "the way back")
    assert office.carnet("disconnect").returncode == 0
    assert mtus(office) == []

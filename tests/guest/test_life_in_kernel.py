"""A tunnel's life where the kernel has ESP and AH: closed, in UDP, for everything."""

import json
import subprocess
import time
from contextlib import contextmanager, suppress
from socket import AF_INET, SOCK_DGRAM, create_connection, socket

import pytest

from lab.network import HOST_ADDRESS, ROUTER_TO_CLIENT
from lab.ordinary import ALICE, give
from lab.pluto import Pluto
from lab.residue import machine_state
from lab.waiting import wait_until
from tests.guest.addresses import BY_VERSION
from tests.guest.cases import Case
from tests.guest.gateways import in_kernel
from tests.guest.opening import open_office, share_office
from tests.guest.traffic import fetch
from tests.lab.test_plugging import agents
from token_client.describing import NO_RETURN

CLOSED = (
    Case("esp", "tunnel", 4, 4),
    Case("ah", "transport", 6, 6),
)
HOUR = 3600
EVERYTHING = "0.0.0.0/0"
ELSEWHERE = "192.0.2.7"
LONG = 1 << 20
FRAGMENTS = "ip[6:2] & 0x3fff != 0"
PORT = 7777
SECRETS = "/run/pluto/carnet"
SMALL, LARGE = 1200, 1360
"""Bytes; in IPsec the one fits into 1400, and the other into 1500 alone."""
_NARROW = (
    "ip link set target mtu 1400;"
    " iptables-legacy -A OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP"
)
_WIDE = "ip link set target mtu 1500; iptables-legacy -F OUTPUT"
_NO_IPSEC = "ip xfrm policy flush; ip xfrm state flush; ip route flush table 220 || :"


def prepare_outside(directory, shared):
    share_office(directory, shared)


@pytest.fixture(scope="module")
def office(lane):
    with open_office(lane, __file__) as made:
        yield made


def download(machine, address):
    """Return how much of the long file comes, its head included."""
    with machine.network(), create_connection((address, 80), 20) as server:
        server.sendall(b"GET /long.bin HTTP/1.0\r\n\r\n")
        with server.makefile("rb") as answer:
            return len(answer.read())


@pytest.mark.parametrize("by", ["traveller", "target"])
def test_udp_encapsulation_is_forced_where_either_end_says_so(office, by):
    v4, extra = BY_VERSION[4], None
    if by == "target":
        office.reconfigure("force_udp = false", "force_udp = true")
    else:
        extra = office.configure_client("agent = false\nforce_udp = true\n")
    with office.watched() as seen:
        facts = office.connect("--objective", "esp", "--network", v4.network, extra=extra)
        assert fetch(office.world.client, v4.server)
    assert seen.kinds(v4.client, v4.target) == {"ESP-in-UDP"}
    office.end(facts)
    if by == "target":
        office.reconfigure("force_udp = true", "force_udp = false")


def be_reached_through_target_alone(world, address):
    """Give the server an address of no work network, to which only Target knows the way."""
    world.server.run(["ip", "address", "add", f"{address}/32", "dev", "lo"])
    via = ("via", BY_VERSION[4].server)
    world.target.run(["ip", "route", "add", f"{address}/32", *via])


def test_a_full_tunnel_carries_all_and_nothing_is_fragmented(office):
    """A download fills whole packets; what is too long for the tunnel is made shorter."""
    v4 = BY_VERSION[4]
    (office.world.server.directory / "long.bin").write_bytes(bytes(LONG))
    networks = f'networks = ["{v4.network}", "{BY_VERSION[6].network}"]'
    office.reconfigure(networks, 'networks = ["0.0.0.0/0", "::/0"]')
    office.admit_to("esp", EVERYTHING)
    be_reached_through_target_alone(office.world, ELSEWHERE)
    with office.watched() as seen:
        facts = office.connect("--objective", "esp", "--network", EVERYTHING)
        assert download(office.world.client, v4.server) > LONG
        assert fetch(office.world.client, ELSEWHERE)
    packets = [p for p in seen.packets if v4.client in (p.source, p.destination)]
    inside = [p for p in packets if {p.source, p.destination} != {v4.client, HOST_ADDRESS}]
    assert {p.kind for p in inside} == {"IKE", "ESP"}
    assert office.capture.count(FRAGMENTS) == 0
    office.end(facts)


@contextmanager
def narrow(router):
    """Have the way to Target take shorter packets than the rest, and tell nobody."""
    router.run(["sh", "-ec", _NARROW])
    try:
        yield
    finally:
        router.run(["sh", "-ec", _WIDE])


def have_mtu(office):
    """Have Target tell Clients an MTU."""
    if "# mtu = 1400" in office.target_text():
        office.reconfigure("# mtu = 1400", "mtu = 1300")


def arrives(office, size):
    """Whether a datagram of so many bytes comes to the server, sent as programs do."""
    server = BY_VERSION[4].server
    with office.world.server.network(), socket(AF_INET, SOCK_DGRAM) as receiver:
        receiver.bind((server, PORT))
        receiver.settimeout(2)
        with office.world.client.network(), socket(AF_INET, SOCK_DGRAM) as sender:
            sender.sendto(bytes(size), (server, PORT))
        with suppress(TimeoutError):
            return len(receiver.recv(size + 1)) == size
    return False


def test_a_large_datagram_is_lost_on_a_narrow_way_but_for_target_s_mtu(office):
    network = ("--network", BY_VERSION[4].network)
    facts = office.connect("--objective", "esp", *network)
    with narrow(office.world.router):
        assert arrives(office, SMALL)
        assert not arrives(office, LARGE)
    office.end(facts)
    have_mtu(office)
    extra = office.configure_client("agent = false\n")
    for objective in ("esp", "ah+esp"):
        facts = office.connect("--objective", objective, *network, extra=extra)
        with narrow(office.world.router):
            assert arrives(office, LARGE)
        # AH and ESP together is the one that does not come back.
        assert (NO_RETURN in office.carnet("status").stdout) == (objective == "ah+esp")
        office.end(facts)


@pytest.mark.parametrize("case", CLOSED, ids=str)
def test_nothing_leaves_in_clear_when_the_kernel_has_lost_its_ipsec(office, case):
    """The daemon is killed and takes nothing along: what else could is done by hand."""
    client, goal = office.world.client, case.goal
    office.be_found_at(case.outer)
    inside = office.connect(*case.options)["virtual_address"]
    with office.watched() as seen:
        office.client_charon.kill()
        client.run(["sh", "-c", _NO_IPSEC])
        assert not fetch(client, goal, 1)
    assert not [p for p in seen.packets if p.destination == goal and p.layers == ("TCP",)]
    office.client_charon.start()
    assert "down, and closed" in office.carnet("status").stdout
    assert office.carnet("disconnect").returncode == 0
    if inside is not None:
        # Without its policies nothing told whose it was; IKE would go out from it later.
        client.run(["ip", "address", "flush", "to", inside])
    with office.watched() as seen:
        fetch(client, goal, 1)
    assert [p for p in seen.packets if p.destination == goal and p.layers == ("TCP",)]


def test_what_a_killed_daemon_left_is_taken_away_and_the_new_tunnel_stays(office):
    """Nothing of either is left when that is over, at either end."""
    v4 = BY_VERSION[4]
    office.be_found_at(4)
    options = ("--objective", "esp", "--network", v4.network)
    ends = office.client_charon, office.target_charon
    before = [in_kernel(each.machine) for each in ends]
    lost = office.connect(*options)
    office.client_charon.kill()
    office.client_charon.start()
    # Target has not noticed: hers is another address now, beside the old one.
    facts = office.connect(*options)
    assert facts["virtual_address"] != lost["virtual_address"]
    assert fetch(office.world.client, v4.server)
    office.target_charon.kill()
    office.target_charon.start()
    for each in (lost, facts):
        request_id = each["name"].removeprefix("carnet-")
        office.target_agent.wait_for_line(f'"{request_id}".*ike-daemon-restarted.*"event": "ended"')
    office.end(facts)
    # What killed daemons have left in the tests before may be gone by now.
    for each, then in zip(ends, before, strict=True):
        now = in_kernel(each.machine).splitlines()
        assert [line for line in now if line not in then.splitlines()] == []


def test_what_no_daemon_can_end_goes_out_of_the_kernel_without_one(office):
    """With Target alone, where charon gives out the request ids, nothing of it has our name."""
    client, goal = office.world.client, BY_VERSION[4].target
    office.be_found_at(4)
    before = in_kernel(client).splitlines()
    facts = office.connect("--objective", "esp", "--transport")
    office.client_charon.kill()
    assert fetch(client, goal)
    assert "the kernel carries the tunnel to work on without it" in office.carnet("status").stderr
    assert office.carnet("disconnect", "--release").returncode == 0
    assert [line for line in in_kernel(client).splitlines() if line not in before] == []
    office.client_charon.start()
    office.target("tunnels", "end", facts["name"].removeprefix("carnet-"))


def test_what_a_killed_daemon_left_goes_as_the_agent_finds_another(office):
    """Nothing that she does: the new one knows nothing of the tunnel, and could not end it."""
    client = office.world.client
    office.be_found_at(4)
    before = in_kernel(client).splitlines()
    options = ("--objective", "esp", "--network", BY_VERSION[4].network)
    facts = office.connect(*options, extra=office.configure_client("agent = true\n"))
    wait_until(lambda: agents(office), "the agent")
    office.client_charon.kill()
    assert [line for line in in_kernel(client).splitlines() if line not in before]
    office.client_charon.start()

    def is_gone():
        listed = client.run(["sh", "-c", "ip xfrm state; ip xfrm policy"]).stdout
        return facts["virtual_address"] not in listed and "proto esp" not in listed

    wait_until(is_gone, "the agent to take out what was left")
    assert office.carnet("disconnect").returncode == 0
    office.target("tunnels", "end", facts["name"].removeprefix("carnet-"))


@contextmanager
def without_ipv4(client):
    """Take the Client's address, as a network does that she leaves."""
    own = BY_VERSION[4].client
    client.run(["ip", "address", "del", f"{own}/24", "dev", "eth0"])
    try:
        yield
    finally:
        client.run(["ip", "address", "add", f"{own}/24", "dev", "eth0"])
        client.run(["ip", "route", "replace", "default", "via", ROUTER_TO_CLIENT])


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_she_moves_to_an_address_of_target_s_that_is_named(office, named):
    """strongSwan tells her both, and takes the other one as she has no IPv4 for a moment."""
    client, (v4, v6) = office.world.client, (BY_VERSION[version].target for version in (4, 6))
    office.be_found_at(4)
    both = f'addresses = ["{v4}", "{v6}"]'
    if named:
        office.reconfigure(f'addresses = ["{v4}"]', both)
    else:
        office.target_agent.wait_for_line(f'"{v6}".*"event": "addresses-not-named"')
    options = ("--objective", "esp", "--network", BY_VERSION[4].network)
    extra = office.configure_client("agent = false\n")
    facts, pairs = office.connect(*options, extra=extra), office.valid_pairs()
    try:
        with without_ipv4(client):
            wait_until(lambda: v6 in office.carnet("status").stdout, "the move")
            resumed = office.carnet("resume", extra=extra)
            if named:
                assert resumed.returncode == 0, resumed.stderr
                assert fetch(client, BY_VERSION[4].server)
            else:
                assert f"went to {v6}, another than was agreed for Target" in resumed.stderr
    finally:
        office.end(facts)
        if named:
            office.reconfigure(both, f'addresses = ["{v4}"]')
    assert office.valid_pairs() == pairs


def set_forward(seconds):
    """Have it later by the time of day, for her and for Target, and by no other clock."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def test_a_clock_that_is_set_takes_nothing_from_her_session_until_target_ends_it(office):
    """It is over by Target's clock, of which she is told."""
    network, server = BY_VERSION[4].network, BY_VERSION[4].server
    office.be_found_at(4)
    options = ("--objective", "esp", "--network", network, "--lifetime", "2h")
    facts = office.connect(*options, extra=office.configure_client(""))
    request_id, pairs = facts["name"].removeprefix("carnet-"), office.valid_pairs()
    set_forward(HOUR)
    assert fetch(office.world.client, server)
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert (tunnel["up"], tunnel["name"]) == (True, facts["name"])
    assert HOUR < tunnel["seconds_left"] <= 2 * HOUR
    set_forward(HOUR)
    office.target_agent.wait_for_line(f'"{request_id}".*"reason": "expired".*"event": "ended"')

    record = office.world.client.path(f"/run/carnet-client/session-{facts['name']}.json")

    def why():
        return json.loads(record.read_bytes())["ended"]

    wait_until(why, "her agent to say why")
    assert why() == (
        "The tunnel to work has ended: its time is over; run `carnet connect` for a new one."
    )
    assert office.valid_pairs() == pairs
    wait_until(lambda: agents(office) == [], "the end of her agent")
    assert office.carnet("disconnect").returncode == 0


def test_an_ordinary_user_has_her_tunnels_in_the_kernel_s_ipsec(office):
    """The last of this file: her machine is as it was, and her things are hers."""
    client, v4 = office.world.client, BY_VERSION[4]
    office.be_found_at(4)
    have_mtu(office)
    office.unwatched()
    office.become_ordinary()
    before = machine_state(office.client_charon)
    for objective, kind in (("esp", "ESP"), ("ah+esp", "AH ESP")):
        with office.watched() as seen:
            facts = office.connect("--objective", objective, "--network", v4.network)
            assert fetch(client, v4.server)
        assert seen.kinds(v4.client, v4.target) == {kind}
        assert not seen.readable
        (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
        assert (tunnel["up"], tunnel["closed"], tunnel["mtu"]) == (True, True, 1300)
        with client.network():
            assert all("mtu 1300" in route for route in routes_into(tunnel["virtual_address"]))
        office.end(facts)
        assert machine_state(office.client_charon) == before


def test_an_ordinary_user_has_her_tunnel_with_libreswan_too(office):
    """By what the test before has made of the office."""
    client, v4 = office.world.client, BY_VERSION[4]
    office.client_charon.stop()
    pluto = Pluto(client)
    pluto.start()
    office.helper.kill()
    office.start_helper('driver = "libreswan"\n')
    extra = office.configure_client("agent = false\n")
    give(client.directory, ALICE)
    with office.watched() as seen:
        facts = office.connect("--objective", "esp", "--network", v4.network, extra=extra)
        assert fetch(client, v4.server)
    assert seen.kinds(v4.client, v4.target) == {"ESP"}
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert (tunnel["up"], tunnel["closed"], tunnel["comes_back"]) == (True, True, False)
    with client.network():
        assert all("mtu 1300" in route for route in routes_into(tunnel["virtual_address"]))
    assert list(client.path(SECRETS).glob("*.secrets")) == []
    office.end(facts)
    assert client.run(["sh", "-ec", "ip xfrm state; ip route show proto 204"]).stdout == ""
    assert list(client.path(SECRETS).iterdir()) == []
    pluto.stop()


def routes_into(address):
    """Return the routes into the tunnel of that address, of which there must be some."""
    listed = subprocess.run(
        ["ip", "-4", "-o", "route", "show", "table", "all", "src", address],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    into = [line for line in listed if not line.startswith("local")]
    assert into
    return into

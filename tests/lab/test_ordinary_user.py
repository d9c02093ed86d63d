"""`carnet` without privileges: what she can do through carnet-helper, and another user cannot."""

import json
from contextlib import contextmanager

import pytest

from carnet.ipsec.vici_link import open_session
from lab.http_client import request
from lab.network import HOST_ADDRESS, SERVER_ADDRESS, TARGET_ADDRESS, VIRTUAL_NETWORK
from lab.ordinary import ALICE, GROUP, MALLORY, as_user, environment, give
from lab.residue import machine_state
from lab.waiting import wait_until
from lab.world import World
from tests.lab.offices import FILE, FILE_SERVER, FILE_URL, is_one_sentence
from tests.lab.ordinary_offices import ALLOWED, OrdinaryAtWork
from tests.lab.test_endings import ended_at_target, established

WATCHING = '"event": "watching"'
SOCKET = "/run/carnet-helper/socket"
MTU = 1300
OURS = ["nameserver " + SERVER_ADDRESS]


class OrdinaryOffice(OrdinaryAtWork):
    """Its traveller is an ordinary user of a machine that others use, too."""

    def configure(self):
        super().configure()
        path = self.world.target.directory / "etc" / "target.toml"
        text = path.read_text().replace("dns = []", f'dns = ["{SERVER_ADDRESS}"]')
        path.write_text(text.replace("# mtu = 1400", f"mtu = {MTU}"))

    def start(self):
        super().start()
        self.become_ordinary(MALLORY)

    def as_mallory(self, *argv, member=True):
        return self.world.client.run(
            [*as_user(MALLORY, member=member), *argv],
            extra=environment(MALLORY) | {"HOME": f"/run/user/{MALLORY}"},
            check=False,
        )


@pytest.fixture(scope="module")
def office(lane):
    with World() as world:
        made = OrdinaryOffice(world, lane)
        made.set_up(14)
        (world.server.directory / "plan.txt").write_bytes(FILE)
        directory = str(world.server.directory)
        world.server.start(["python", str(FILE_SERVER), SERVER_ADDRESS, "80", directory])
        world.server.wait_for_port(80)
        made.start()
        # What charon's first tunnel makes and keeps: its device.
        assert made.carnet("connect").returncode == 0
        made.carnet("disconnect")
        yield made


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.carnet("disconnect")


def test_she_has_no_privileges(office):
    assert office.command(office.world.client, "id", "-u").stdout == f"{ALICE}\n"
    refused = office.command(office.world.client, "ip", "link", "set", "lo", "down", check=False)
    assert "not permitted" in refused.stderr
    reading = office.command(office.world.client, "cat", "/run/helper.toml", check=False)
    assert "denied" in reading.stderr


def test_she_connects_and_is_closed_and_ends_it(office):
    before = machine_state(office.client_charon)
    done = office.carnet("connect")
    assert done.returncode == 0, done.stderr
    assert request(office.world.client, "GET", FILE_URL).body == FILE
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert (tunnel["up"], tunnel["closed"]) == (True, True)
    request_id = established(office)
    done = office.carnet("disconnect")
    assert (done.returncode, done.stderr) == (0, "")  # Target has heard of it
    ended_at_target(office, request_id)
    assert machine_state(office.client_charon) == before


def name_servers(office):
    """Return what programs read, without comments."""
    lines = office.world.client.run(["cat", "/etc/resolv.conf"]).stdout.splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_she_has_the_tunnel_s_name_servers_and_mtu(office):
    """And what a crash has left of them goes with the tunnel."""
    before = machine_state(office.client_charon)
    office.carnet("connect", extra={"CARNET_CRASH_AT": "client.burned"})
    assert name_servers(office) == OURS
    routes = office.world.client.run(["ip", "route", "show", "table", "220"]).stdout
    assert routes.rstrip().endswith(f"mtu {MTU}")
    assert "scope" not in routes  # charon takes away no route that has another than it set
    name = established(office)
    for call in ({"call": "restore", "name": f"carnet-{name}"}, {"call": "whose"}):
        assert send(office, call)["result"] in (False, None)
    assert name_servers(office) == OURS
    assert office.carnet("disconnect").returncode == 0
    assert machine_state(office.client_charon) == before


AS_ITS_UNIT = (
    *("unshare", "--mount", "--propagation=slave", "setpriv", f"--regid={GROUP}"),
    *("--clear-groups", "--", "python", "-m", "tests.confined", "carnet-helper"),
)
"""With its group, its one capability, its system calls, and mounts of its own."""


@pytest.mark.parametrize(
    ("how", "why"),
    [(("",), "carnet-helper does not let"), ((ALLOWED, AS_ITS_UNIT), "mount: ")],
    ids=["not allowed", "as its unit"],
)
def test_where_her_name_servers_are_not_used_she_is_told(office, how, why):
    before = name_servers(office)
    office.helper.kill()
    office.start_helper(*how)
    done = office.carnet("connect")
    assert done.returncode == 0, done.stderr
    assert f"name servers are not used ({why}" in done.stdout + done.stderr
    assert name_servers(office) == before
    routes = office.world.client.run(["ip", "route", "show", "table", "220"]).stdout
    assert routes.rstrip().endswith(f"mtu {MTU}")
    office.carnet("disconnect")
    office.helper.kill()
    office.start_helper()


def test_another_user_neither_sees_nor_ends_it(office):
    assert office.carnet("connect").returncode == 0
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    name = tunnel["name"]
    assert json.loads(office.as_mallory("carnet", "status", "--json").stdout) == []
    for call in ({"call": "down", "name": name}, {"call": "lift", "name": name}):
        assert send(office, call) == {"result": None, "error": None, "sentence": ""}
    for call in ("status", "installed", "names"):
        assert send(office, {"call": call})["result"] == []
    (after,) = json.loads(office.carnet("status", "--json").stdout)
    assert (after["up"], after["closed"]) == (True, True)
    assert request(office.world.client, "GET", FILE_URL).body == FILE


@contextmanager
def watched(office):
    """Wait until her agent has called the helper anew."""
    before = office.helper, office.helper.output().count(WATCHING)
    yield
    helper, times = office.helper, before[1] if office.helper is before[0] else 0
    helper.wait_for(lambda: helper.output().count(WATCHING) > times, "her agent to call")


def test_the_helper_s_restart_forgets_nobody_s_tunnel(office):
    """It is watched over as before, too."""
    before = machine_state(office.client_charon)
    with watched(office):
        assert office.carnet("connect").returncode == 0
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    with watched(office):
        office.helper.kill()
        released = office.carnet("disconnect", "--release")
        assert released.returncode == 5
        assert is_one_sentence(released)
        office.start_helper()
    send(office, {"call": "down", "name": tunnel["name"]})
    (after,) = json.loads(office.carnet("status", "--json").stdout)
    assert (after["up"], after["closed"], after["ended"]) == (True, True, None)
    office.pull_out(office.world.client)

    def ended():
        return json.loads(office.carnet("status", "--json").stdout)[0]["ended"]

    wait_until(ended, "her agent to end it", 40)
    office.plug_in(office.world.client)
    assert "was pulled out" in ended()
    assert machine_state(office.client_charon) == before


def test_while_another_vpn_would_take_her_key_she_gets_no_tunnel(office):
    """Its peer proves itself with a key, by whatever name, or to whomever: hers would do."""
    proved = {"auth": "psk"}
    vpn = {"remote_addrs": [TARGET_ADDRESS], "local": proved, "remote": proved}
    with open_session(office.client_charon.vici) as session:
        session.load_conn({"office-vpn": vpn})
        done = office.carnet("connect")
        vpn |= {"remote": proved | {"id": TARGET_ADDRESS}}
        session.load_conn({"office-vpn": vpn})
        half = office.carnet("connect")
        session.load_conn({"office-vpn": vpn | {"local": proved | {"id": "office.example"}}})
        named = office.carnet("connect")
        session.unload_conn({"name": "office-vpn"})
    for refused in (done, half):
        assert (refused.returncode, is_one_sentence(refused)) == (5, True), refused.stderr
        assert "connection office-vpn does not say what its ends are called" in refused.stderr
    assert named.returncode == 0, named.stderr


def test_her_agent_ends_it_when_target_does(office):
    before = machine_state(office.client_charon)
    assert office.carnet("connect").returncode == 0
    request_id = established(office)
    office.target("tunnels", "end", request_id)

    def record():
        return json.loads(office.carnet("status", "--json").stdout)[0]["ended"]

    wait_until(record, "her agent to say why", 40)
    assert "Target's operator ended it" in record()
    assert machine_state(office.client_charon) == before


def test_no_address_by_which_the_machine_reaches_something_becomes_a_tunnel_s(office):
    """Whatever Target has to give: packets to the Host would come back to this machine."""
    path = office.world.target.directory / "etc" / "target.toml"
    before = machine_state(office.client_charon)
    # One who means it closes no pool in which the Host is: it could not answer it any more.
    office.change_target_file("block = true\n", "block = false\n")
    unblocked = path.read_text()
    office.change_target_file(VIRTUAL_NETWORK, f"{HOST_ADDRESS}/32")
    again(office)
    done = office.carnet("connect")
    assert (done.returncode, is_one_sentence(done)) == (5, True), done.stderr
    assert f"granted {HOST_ADDRESS} as this machine's address inside the tunnel" in done.stderr
    assert "a Host's; nothing is up" in done.stderr
    assert machine_state(office.client_charon) == before
    path.write_text(unblocked)
    again(office)
    # The same again would be the same request, with the same answer.
    assert office.carnet("connect", "--lifetime", "1h").returncode == 0


def again(office):
    """Start Target anew, with its configuration as it is now."""
    office.target_agent.stop()
    office.target_agent = office.serve_target()


@pytest.fixture
def unwatched(office):
    """The name of a tunnel that its user's agent, for a reason of hers, does not look at."""
    alone = office.configure_client("agent = false\n")
    give(office.world.client.directory, ALICE)
    done = office.carnet("connect", "--json", extra=alone)
    assert done.returncode == 0, done.stderr
    office.target_agent.kill()
    yield json.loads(done.stdout)["name"]
    office.target_charon.assign()
    office.target_agent = office.serve_target()


def test_what_a_target_in_league_with_her_assigns_by_a_redirect_is_gone(office, unwatched):
    office.target_charon.assign(HOST_ADDRESS)
    with open_session(office.target_charon.vici) as session:
        session.request("redirect", {"ike": unwatched, "gateway": TARGET_ADDRESS})
    office.helper.wait_for_line('"event": "ended-as-another"')
    wait_until(lambda: no_tunnel(office), "the end of it")
    assert HOST_ADDRESS not in office.world.client.run(["ip", "-o", "address"]).stdout


def no_tunnel(office):
    with open_session(office.client_charon.vici) as session:
        return not session.get_conns()["conns"]


SLOW_CLOCK = """
import sys, time
tells = time.time
time.time = lambda: tells() - 10 * 365 * 86400
from token_client.cli import main
main()
"""


def test_a_clock_that_is_years_behind_keeps_her_out_of_nothing(office):
    given = {"pin": office.secrets.pin}
    slow = ("python", "-c", SLOW_CLOCK, "connect")
    done = office.command(office.world.client, *slow, given=given, check=False)
    assert done.returncode == 0, done.stderr
    assert "clock is slow: the booklet was minted at" in done.stderr.splitlines()[0]
    assert office.carnet("disconnect").returncode == 0


def test_who_is_not_of_the_group_cannot_call(office):
    done = office.as_mallory("carnet", "status", member=False)
    assert (done.returncode, is_one_sentence(done)) == (5, True), done.stderr
    assert "add you to its group" in done.stderr


def test_floods_of_one_user_keep_no_other_out(office):
    """As many connections as he can open, and left open."""
    flood = (
        "import socket, sys\n"
        "kept = []\n"
        "for _ in range(200):\n"
        "    kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))\n"
        f"    kept[-1].connect({SOCKET!r})\n"
        "print('flooded', flush=True)\n"
        "sys.stdin.read()\n"
    )
    machine = office.world.client
    process = machine.start(
        [*as_user(MALLORY), "python", "-c", flood], log="../flood.log", stdin=-1
    )
    process.wait_for_line("flooded")
    assert office.carnet("status", "--json").stdout == "[]\n"
    process.kill()


def send(office, call):
    """Call the helper as the other user; None if it hangs up without a word."""
    text = call if isinstance(call, str) else json.dumps(call)
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"s.connect({SOCKET!r})\n"
        "s.sendall(sys.stdin.buffer.read())\n"
        "sys.stdout.buffer.write(s.recv(1 << 17))\n"
    )
    done = office.world.client.run([*as_user(MALLORY), "python", "-c", program], stdin=text)
    return json.loads(done.stdout) if done.stdout else None

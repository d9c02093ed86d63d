"""Closed, not open: with a capture on the router while what carries the tunnel is killed."""

import json
import signal
import socket
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from carnet.ipsec.block import Closed, HeldBack
from carnet.ipsec.block.iptables import Iptables
from carnet.ipsec.block.nft import Nft
from lab.capture import Capture
from lab.http_client import request
from lab.network import CLIENT_ADDRESS, SERVER_ADDRESS
from lab.waiting import wait_until
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, office_at_work
from tests.lab.test_plugging import agents, signal_inside, watchers

CLEAR = f"host {CLIENT_ADDRESS} and dst net 10.20.0.0/16"
DISCARD = 9


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=16) as made:
        yield made


@pytest.fixture(autouse=True)
def released(office):
    yield
    assert office.carnet("disconnect", "--release").returncode == 0
    wait_until(lambda: agents(office) == [], "the end of the agents", 30)


def connect(office, *options, extra=None):
    done = office.carnet("connect", *options, extra=extra)
    assert done.returncode == 0, done.stderr


def fetches(office):
    return request(office.world.client, "GET", FILE_URL).body == FILE


def try_in_clear(office):
    """Have the Client send what is meant for the tunnel: UDP, and TCP's first packet."""
    with office.world.client.network():
        with socket.socket(type=socket.SOCK_DGRAM) as udp, suppress(OSError):
            udp.sendto(b"for the work network alone", (SERVER_ADDRESS, DISCARD))
        with suppress(OSError), socket.create_connection((SERVER_ADDRESS, 80), timeout=0.3):
            pass


@contextmanager
def clear_packets(office):
    """Yield a list that has, afterwards, how many packets passed the router in clear."""
    found = []
    with Capture(office.world.router) as capture:
        yield found
    found.append(capture.count(CLEAR))


@contextmanager
def charon_killed(office):
    office.client_charon.kill()
    try:
        yield
    finally:
        office.client_charon.start()


def end_agents(office):
    """End whatever `carnet connect` left running on the Client, as a crash would."""
    for pid, _ in watchers(office):
        signal_inside(office, pid, signal.SIGKILL)
    wait_until(lambda: agents(office) == [], "the end of the agent")


def status(office):
    return json.loads(office.carnet("status", "--json").stdout)


def test_without_a_tunnel_and_without_the_block_packets_leave_in_clear(office):
    """What the other tests of this file stand on: the capture sees such packets."""
    connect(office, "--no-block")
    assert [each["closed"] for each in status(office)] == [False]
    with clear_packets(office) as found, charon_killed(office):
        try_in_clear(office)
    assert found[0] > 0


def test_nothing_leaves_in_clear_while_charon_and_the_agent_are_killed(office):
    connect(office)
    assert fetches(office)
    with clear_packets(office) as found:
        end_agents(office)
        with charon_killed(office):
            try_in_clear(office)
            done = office.carnet("status")
            assert (done.returncode, is_one_sentence(done)) == (5, True)
            assert "nothing leaves in clear for 10.20.0.0/16" in done.stderr
            assert "carnet disconnect --release" in done.stderr
        try_in_clear(office)
        shown = office.carnet("status").stdout
        assert "down, and closed" in shown
        assert "`carnet disconnect work` ends the session" in shown
    assert found == [0]
    connect(office)
    assert fetches(office)
    assert len(status(office)) == 1


def test_the_end_of_the_session_lifts_the_block(office):
    connect(office)
    with clear_packets(office) as found:
        assert office.carnet("disconnect").returncode == 0
        try_in_clear(office)
    assert found[0] > 0


@contextmanager
def without_nft(office):
    places = "$(find -L /usr/sbin/nft /sbin/nft -maxdepth 0)"
    client = office.world.client
    client.run(["sh", "-ec", f"for each in {places}; do mount --bind /bin/false $each; done"])
    try:
        yield
    finally:
        client.run(["sh", "-ec", f"for each in {places}; do umount $each; done"])


@pytest.mark.parametrize("options", [[], ["--release"]])
def test_a_block_that_cannot_be_lifted_now_is_not_said_to_be_lifted(office, options):
    connect(office, extra=office.configure_client("agent = false\n"))
    with without_nft(office):
        done = office.carnet("disconnect", *options)
        assert (done.returncode, is_one_sentence(done)) == (5, True)
        assert "nft" in done.stderr
    assert len(status(office)) == 1
    try_in_clear(office)
    assert office.carnet("disconnect").returncode == 0
    assert status(office) == []


NO_PROGRAMS = """
import errno, os, subprocess

def refuse(*_):
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

subprocess._fork_exec = os.fork = refuse
"""
DISCONNECT = """
from token_client import config, status
from token_client.closing import end_session
from token_client.commands.drivers import driver as driver_for
from token_client.memory import memory_directory
from token_client.sessions import SessionStore
from carnet.errors import IPsecError

driver, sessions = driver_for(config.load()), SessionStore(memory_directory())
(session,) = sessions.all()
try:
    end_session(driver, sessions, session.name)
except IPsecError as error:
    print(error.sentence)
"""


def test_where_no_program_can_be_started_nothing_is_said_to_be_gone_that_stays(office):
    # Her agent, which can start programs, would take part of it away at the same time.
    connect(office, extra=office.configure_client("agent = false\n"))
    run_main = "from token_client.entry import main; main()"
    client = office.world.client
    done = client.run(["python", "-c", NO_PROGRAMS + run_main, "disconnect"], check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert "cannot start nft now (Resource temporarily unavailable)" in done.stderr
    assert [(each["up"], each["closed"]) for each in status(office)] == [(True, True)]
    # As the agent and `carnet connect --foreground` end it, the tunnel is down at once.
    done = client.run(["python", "-c", NO_PROGRAMS + DISCONNECT])
    assert "stays until `carnet disconnect` ends it" in done.stdout
    assert [(each["up"], each["closed"]) for each in status(office)] == [(False, True)]
    assert office.carnet("disconnect").returncode == 0
    assert status(office) == []


TWICE = """
from subprocess import check_output
from carnet.ipsec.block.closed import Closed
from carnet.ipsec.block.iptables import Iptables
from carnet.ipsec.block.nft import Nft

for network in ("10.8.0.0/16", "10.9.0.0/16"):
    Nft().close(Closed(
        name="carnet-twice", networks=(network,), targets=(), hosts=(), userspace=False
    ))
    print(check_output(["nft", "list", "table", "inet", "carnet_block_twice"], text=True))
Nft().lift("carnet-twice")
"""


def test_a_block_takes_the_place_of_an_older_one_whole(office):
    shown = office.world.client.run(["python", "-c", TWICE]).stdout
    first, second = shown.split("table inet carnet_block_twice")[1:]
    assert "10.8.0.0/16" in first
    assert second == first.replace("10.8.0.0/16", "10.9.0.0/16")


def test_release_lifts_it_also_without_a_daemon(office):
    connect(office)
    with charon_killed(office), clear_packets(office) as found:
        done = office.carnet("disconnect", "--release", "work")
        assert done.stdout.startswith("Released work: packets leave")
        try_in_clear(office)
    assert found[0] > 0
    assert all(left["released"] and not left["closed"] for left in status(office))
    wait_until(lambda: status(office) == [], "its agent to clean up", 30)


def test_what_she_ends_without_a_daemon_is_gone_on_with_by_the_agent(office):
    connect(office)
    wait_until(lambda: all(each["watched"] for each in status(office)), "its agent", 30)
    with charon_killed(office), clear_packets(office) as found:
        done = office.carnet("disconnect")
        assert (done.returncode, is_one_sentence(done)) == (5, True)
        assert "is to end, by the agent of this machine" in done.stderr
        tables = partial(office.world.client.run, ["nft", "list", "tables"])
        wait_until(lambda: "carnet_block" not in tables().stdout, "its block to go", 30)
        try_in_clear(office)
    assert found[0] > 0
    wait_until(lambda: status(office) == [], "its record to go")


def test_a_tunnel_that_target_lets_fall_leaves_the_machine_closed(office):
    connect(office, "--lifetime", "1h")
    with clear_packets(office) as found:
        office.target_charon.stop()
        wait_until(lambda: not status(office)[0]["up"], "the tunnel to go")
        try_in_clear(office)
    office.target_charon.start()
    assert found == [0]
    assert status(office)[0]["closed"]


def test_it_is_closed_before_the_tunnel_comes_up_and_found_without_a_record(office):
    done = office.start_connect(extra={"CARNET_CRASH_AT": "client.closed"})
    done.wait(60)
    with clear_packets(office) as found:
        try_in_clear(office)
    assert found == [0]
    (left,) = status(office)
    assert (left["up"], left["closed"]) == (False, True)
    for record in office.world.client.path("run").rglob("session-*.json"):
        record.unlink()
    assert "no record tells whose it is; what is meant for it is held back" in (
        office.carnet("status").stdout
    )
    connect(office)
    assert fetches(office)


def test_foreground_that_loses_its_tunnel_leaves_the_machine_closed(office):
    process = office.start_connect("--foreground")
    process.wait_for_line("The tunnel stands until Ctrl-C")
    with clear_packets(office) as found:
        with charon_killed(office):
            assert process.wait() == 5
            try_in_clear(office)
        assert office.carnet("status").stdout.count("down, and closed") == 1
    assert found == [0]


def test_foreground_that_is_ended_lifts_the_block(office):
    process = office.start_connect("--foreground")
    process.wait_for_line("The tunnel stands until Ctrl-C")
    process.signal(signal.SIGINT)
    assert process.wait() == 0
    with clear_packets(office) as found:
        try_in_clear(office)
    assert found[0] > 0


@pytest.mark.parametrize("made", [Nft(), Iptables()], ids=["nftables", "iptables"])
def test_the_kernel_tells_what_each_block_holds_back(office, made):
    """Networks of which nftables makes one, too: another's tunnel is not to lead there."""
    name = f"carnet-{'0d' * 16}"
    closed = Closed(
        name=name,
        networks=("10.0.0.0/16", "10.1.0.0/17", "10.3.0.1/32", "fd20::/64"),
        targets=("198.51.100.2", "fd51::2"),
        hosts=(("203.0.113.2", 8443), ("fd52::2", 8443)),
        userspace=False,
    )
    with office.world.client.network():
        made.close(closed)
        try:
            assert made.held_back()[name] == HeldBack(
                networks=frozenset(closed.networks),
                targets=frozenset(closed.targets),
                hosts=frozenset(closed.hosts),
            )
        finally:
            made.lift(name)

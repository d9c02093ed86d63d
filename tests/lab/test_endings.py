"""How tunnels end: whoever ends them, nothing is left at either end, and she is told why."""

import json
import re
import signal
import time
from contextlib import nullcontext, suppress
from socket import AF_INET, SOCK_DGRAM, socket

import pytest

from carnet.ipsec.vici_link import open_session
from lab.capture import Capture
from lab.http_client import request
from lab.network import HOST_ADDRESS, SERVER_ADDRESS, VIRTUAL_NETWORK
from lab.office import HOST_PORT, USER
from lab.process import Process
from lab.residue import machine_state
from lab.urgent import urgent
from lab.waiting import wait_until
from tests.lab.offices import office_at_work
from tests.lab.test_plugging import agents, signal_inside, watchers, watching

WAIT = 40
ENDED = "The tunnel to work has ended: {}."
REVOKED = "its key pair was revoked at the Host; ask the operator there"
BY_OPERATOR = "Target's operator ended it; ask there before you connect again"
REMOVED = "Target has you no longer as a member; ask its operator"
EXPIRED = "its time is over; run `carnet connect` for a new one"
PULLED = (
    "Token alice was pulled out, so the tunnel to work was ended; plug it in and run"
    " `carnet connect` for a new one."
)
NAME_SERVER = f"nameserver {SERVER_ADDRESS}"


@pytest.fixture(scope="module")
def office(lane):
    named = {"dns = []": f'dns = ["{SERVER_ADDRESS}"]'}
    with office_at_work(lane, pairs=20, at_target=named) as made:
        # What charon's first tunnel makes and keeps: its device.
        assert made.carnet("connect").returncode == 0
        end(made)
        yield made


@pytest.fixture(autouse=True)
def cleared(office):
    yield
    office.carnet("disconnect")


def end(office):
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert office.carnet("disconnect").returncode == 0
    ended_at_target(office, tunnel["name"].removeprefix("carnet-"))


def ended_at_target(office, request_id):
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "ended"', WAIT)


def at_target(office, request_id):
    return next(each for each in office.tunnels() if each["request_id"] == request_id)


def revoke_at_host(office, tunnel):
    office.host("revoke", "--key", tunnel["key_id"], "--reason", "a test")


def pull_the_token(office, request_id):
    office.pull_out(office.world.client)


def end_at_target(office, tunnel):
    office.target("tunnels", "end", tunnel["request_id"])


def remove_user(office, tunnel):
    office.target("users", "remove", USER)


def wait_for_expiry(office, tunnel):
    """Nothing to do."""


WAYS = [
    (revoke_at_host, "8h", REVOKED),
    (end_at_target, "8h", BY_OPERATOR),
    (remove_user, "8h", REMOVED),
    (wait_for_expiry, "10s", EXPIRED),
]


def states(office):
    return [machine_state(charon) for charon in (office.client_charon, office.target_charon)]


def record(office):
    (found,) = json.loads(office.carnet("status", "--json").stdout)
    return found


def has_said_why(office):
    """Tell whether her agent has; there is no record for a moment, as it ends the session."""
    return any(each["ended"] for each in json.loads(office.carnet("status", "--json").stdout))


def established(office):
    request_id = record(office)["name"].removeprefix("carnet-")
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "established"', WAIT)
    return request_id


@pytest.fixture
def plugged_in(office):
    """Have the token back afterwards."""
    yield
    office.plug_in(office.world.client)


def test_a_pulled_token_and_her_own_command_leave_nothing(office, plugged_in):
    before = states(office)
    assert office.carnet("connect").returncode == 0
    pulled = established(office)
    assert all(now != then for now, then in zip(states(office), before, strict=True))
    pull_the_token(office, pulled)
    ended_at_target(office, pulled)
    wait_until(lambda: has_said_why(office), "her agent to say why", WAIT)
    assert record(office)["ended"] == PULLED
    assert states(office) == before


def test_her_own_command_leaves_nothing(office):
    before = states(office)
    assert office.carnet("connect").returncode == 0
    established(office)
    assert NAME_SERVER in states(office)[0]
    end(office)
    assert states(office) == before


def is_damaged(record):
    record.write_bytes(b"{")


def is_gone(record):
    record.unlink()


@pytest.mark.parametrize(
    ("happens", "way", "lifetime", "why"),
    [(is_gone, revoke_at_host, "8h", REVOKED), (is_damaged, wait_for_expiry, "10s", EXPIRED)],
    ids=["gone", "damaged"],
)
def test_a_session_whose_record_was_lost_ends_as_any(office, happens, way, lifetime, why):
    """Her agent remembers what its record said."""
    before = states(office)
    done = office.carnet("connect", "--json", "--lifetime", lifetime, extra=office.hear())
    request_id = json.loads(done.stdout)["name"].removeprefix("carnet-")
    watchers(office)
    happens(next(office.world.client.path("/run/carnet-client").glob("session-*.json")))
    way(office, at_target(office, request_id))
    wait_until(lambda: agents(office) == [], "the end of her agent", WAIT)
    ended_at_target(office, request_id)
    assert ENDED.format(why) in office.heard()
    assert office.carnet("status").stdout == "No tunnel; `carnet connect` opens one.\n"
    assert states(office) == before


def test_who_stays_in_the_foreground_is_told_why(office):
    before = states(office)
    process = office.start_connect("--foreground")
    process.wait_for_line("until Ctrl-C")
    assert record(office)["watched"]
    revoke_at_host(office, at_target(office, established(office)))
    assert process.wait() == 5
    assert ENDED.format(REVOKED) in process.output()
    assert states(office) == before


def test_the_end_of_a_session_is_announced_five_minutes_before(office):
    heard = office.hear()
    assert office.carnet("connect", "--lifetime", "10m", extra=heard).returncode == 0
    watching(office)
    assert "it ends soon" not in office.carnet("status").stdout
    end(office)
    wait_until(lambda: agents(office) == [], "the end of her agent", WAIT)
    assert office.heard() == ""
    assert office.carnet("connect", "--lifetime", "5m", extra=heard).returncode == 0
    wait_until(office.heard, "the announcement", WAIT)
    assert "The tunnel to work ends in " in office.heard()
    assert "left: it ends soon" in office.carnet("status").stdout


def start_target_s_agent(office):
    office.target_agent = office.serve_target()


def test_where_nobody_says_why_nothing_is_made_up_and_she_is_told_later(office):
    """Whoever forges an ending in the Host's place is not believed; a Host that is gone is none."""
    before = states(office)
    assert office.carnet("connect", extra=office.hear()).returncode == 0
    request_id = established(office)
    # Who has not heard the end would take it for a Target that is silent.
    watching(office)
    office.target_agent.kill()
    try:
        office.target("tunnels", "end", request_id)
        wait_until(lambda: "does not say why" in office.heard(), "the end", WAIT)
        office.host_agent.stop()
        found = record(office)
        assert (found["ended"], found["closed"], found["asked_on"]) == (None, True, True)
    finally:
        start_target_s_agent(office)
        office.host_agent = office.serve_host()
    wait_until(lambda: has_said_why(office), "her agent to say why", WAIT)
    assert record(office)["ended"] == ENDED.format(BY_OPERATOR)
    assert states(office) == before


def test_a_target_whose_daemon_goes_ends_no_session(office):
    process = office.start_connect("--foreground")
    process.wait_for_line("until Ctrl-C")
    established(office)
    office.target_charon.stop()
    try:
        assert process.wait() == 5
        assert "run `carnet connect` for a new one" in process.output()
        assert (record(office)["up"], record(office)["closed"]) == (False, True)
        nothing_leaves_in_clear(office)
    finally:
        office.start_target_charon()


def nothing_leaves_in_clear(office):
    """Have the work network and Target itself send to a virtual address that has no tunnel."""
    world = office.world
    before = held_back(world.target)
    with Capture(world.router) as past_the_router:
        for machine in (world.server, world.target):
            # Target's own program is told that it may not.
            with (
                machine.network(),
                socket(AF_INET, SOCK_DGRAM) as sending,
                suppress(PermissionError),
            ):
                sending.sendto(b"secret", ("10.99.0.1", 9))
        wait_until(lambda: held_back(world.target) >= before + 2, "Target to hold both back")
    assert past_the_router.count(f"dst net {VIRTUAL_NETWORK}") == 0


def held_back(target):
    """Return how many packets Target's block has held back."""
    listed = target.run(["nft", "list", "table", "inet", "carnet_pool"]).stdout
    return int(re.search(r"counter packets (\d+)", listed)[1])


def test_nothing_leaves_target_in_clear_once_a_session_has_ended(office):
    assert office.carnet("connect").returncode == 0
    established(office)
    end(office)
    nothing_leaves_in_clear(office)


def test_the_block_stays_while_a_session_lives_and_goes_with_the_service_else(office):
    target = office.world.target
    assert office.carnet("connect").returncode == 0
    request_id = established(office)
    for stop in (Process.kill, Process.stop):
        stop(office.target_agent)
        try:
            assert held_back(target) >= 0
        finally:
            start_target_s_agent(office)
    assert office.carnet("disconnect").returncode == 0
    ended_at_target(office, request_id)
    wait_until(lambda: office.live_tunnels() == [], "the end of what others have left", WAIT)
    target.run(["nft", "flush", "ruleset"])
    office.target_agent.wait_for_line('"event": "pool-block-gone"', WAIT)
    wait_until(lambda: "carnet_pool" in tables(target), "the block to be made anew", WAIT)
    office.target_agent.stop()
    try:
        assert tables(target) == ""
    finally:
        start_target_s_agent(office)


def tables(machine):
    return machine.run(["nft", "list", "tables"]).stdout


def test_the_host_tells_strangers_nothing_of_endings(office):
    url = f"http://{HOST_ADDRESS}:{HOST_PORT}/v1/endings"
    for body in (bytes(16), bytes(15), b""):
        answer = request(office.world.client, "POST", url, body)
        assert (answer.status, answer.body) == (403, b"")


DOWN_WITHIN = 2.0
"""Seconds, at both ends, and she is told why; for who is served first whatever the load."""


def is_down_at_both_ends(office):
    for charon in (office.client_charon, office.target_charon):
        with open_session(charon.vici) as session:
            if list(session.list_sas()):
                return False
    return True


def is_written_down(office):
    """Tell whether her record says why, which is once all is gone at her end; without a command."""
    records = office.world.client.path("/run/carnet-client").glob("session-*.json")
    return any(json.loads(each.read_bytes())["ended"] for each in records)


@pytest.mark.parametrize(("way", "lifetime", "why"), WAYS, ids=lambda x: getattr(x, "__name__", ""))
def test_nothing_is_left_and_she_is_told_why(office, way, lifetime, why):
    """What somebody ends is down and told in time, from the beginning of the command."""
    before = states(office)
    assert office.carnet("connect", "--lifetime", lifetime).returncode == 0
    request_id = established(office)
    assert states(office)[1] != before[1] or lifetime != "8h"
    tunnel = at_target(office, request_id)
    watching(office)
    with nullcontext() if way is wait_for_expiry else urgent() as is_served_first:
        began = time.monotonic()
        way(office, tunnel)
        wait_until(lambda: is_down_at_both_ends(office), "the end at both ends", WAIT)
        ended_at_target(office, request_id)
        wait_until(lambda: is_written_down(office), "her agent to say why", WAIT)
        taken = time.monotonic() - began
    assert taken <= DOWN_WITHIN or not is_served_first
    if way is remove_user:
        office.admit()
    assert record(office)["ended"] == ENDED.format(why)
    assert f"  ended: {ENDED.format(why)}\n" in office.carnet("status").stdout
    assert states(office) == before


def kill_her_agent(office):
    found = watchers(office)
    assert record(office)["watched"]
    for pid, _ in found:
        signal_inside(office, pid, signal.SIGKILL)
    wait_until(lambda: agents(office) == [], "the end of her agent")
    assert not record(office)["watched"]


def kill_her_daemon(office):
    office.client_charon.kill()
    office.client_charon.start()


def kill_target_s_agent(office):
    office.target_agent.kill()


def kill_target_s_daemon(office):
    office.target_charon.kill()
    office.target_charon.start()


def nothing(office):
    """What comes next is what she does."""


def ask_target_to_end_it(office):
    """Nothing tells Target that her daemon is gone."""
    office.target("tunnels", "end", USER)


KILLED = [
    (kill_her_agent, nothing),
    (kill_target_s_agent, start_target_s_agent),
    (kill_her_daemon, ask_target_to_end_it),
    (kill_target_s_daemon, nothing),
]


@pytest.mark.parametrize(("kill", "then"), KILLED, ids=[kill.__name__ for kill, _ in KILLED])
def test_whatever_is_killed_nothing_is_left_once_she_has_ended_it(office, kill, then):
    """The next command, or the next start, finds the rest; the last of this file."""
    if kill in (kill_her_daemon, kill_target_s_daemon):
        kill(office)  # one that was just started, as there will be in the end
    before = states(office)
    assert office.carnet("connect").returncode == 0
    request_id = established(office)
    kill(office)
    assert office.carnet("disconnect").returncode == 0
    then(office)
    ended_at_target(office, request_id)
    assert states(office) == before
    wait_until(lambda: agents(office) == [], "the end of her agent")

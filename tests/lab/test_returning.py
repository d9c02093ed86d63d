"""A tunnel whose peer was away comes back without a new key pair, or says that it cannot.

Dead-peer detection is set to a second here, and the daemons' patience to less than that.
"""

import json
import re
import signal
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from carnet.ipsec.vici_link import open_session
from lab.capture import Capture
from lab.http_client import request
from lab.network import HOST_ADDRESS, TARGET_ADDRESS
from lab.waiting import wait_until
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, office_at_work
from tests.lab.test_block import CLEAR, try_in_clear
from tests.lab.test_plugging import agents, signal_inside, watchers

KEPT = (
    r"Target work has not confirmed that the session is over, and may keep it until"
    r" 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ; its operator can end it sooner\.\n"
)
SOON = "dead_peer_seconds = 1\n"
RESUME = "resume_within = 7200"


@pytest.fixture(scope="module")
def office(lane):
    quick = {"dead_peer_seconds = 30": "dead_peer_seconds = 1"}
    with office_at_work(lane, pairs=20, impatient=True, at_target=quick) as made:
        yield made


@pytest.fixture(autouse=True)
def released(office):
    yield
    cable(office, "up")
    assert office.carnet("disconnect", "--release").returncode == 0
    wait_until(lambda: office.live_tunnels() == [], "the end at Target")
    wait_until(lambda: agents(office) == [], "the end of the agent")


def reconfigure(office, old, new):
    office.change_target_file(old, new)
    office.target_agent.stop()
    office.target_agent = office.serve_target()


@pytest.fixture
def session(office):
    """A tunnel that stands, and its Request ID; what follows costs no further key pair."""
    return connect(office)


def connect(office, text=SOON, **extra):
    extra |= office.configure_client(text)
    done = office.carnet("connect", "--json", extra=extra)
    assert done.returncode == 0, done.stderr
    assert fetches(office)
    request_id = json.loads(done.stdout)["name"].removeprefix("carnet-")
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "established"')
    return request_id


def fetches(office):
    return request(office.world.client, "GET", FILE_URL).body == FILE


def cable(office, state):
    office.world.router.run(["ip", "link", "set", "client", state])


def status(office):
    return json.loads(office.carnet("status", "--json").stdout)


def stands(office):
    return any(each["up"] for each in status(office))


def is_lost(office, charon):
    with open_session(charon.vici) as session:
        return not any(
            b"ESTABLISHED" in sa["state"] for each in session.list_sas() for sa in each.values()
        )


@contextmanager
def network_gone(office):
    """No network until both ends have given each other up."""
    cable(office, "down")
    try:
        for charon in (office.client_charon, office.target_charon):
            wait_until(partial(is_lost, office, charon), "each end to give the other up")
        yield
    finally:
        cable(office, "up")


BLOCK = """
add table ip blocked
add chain ip blocked forward {{ type filter hook forward priority -10; }}
add rule ip blocked forward ip daddr {} udp dport 4500 counter drop
add rule ip blocked forward udp sport 4500 drop
"""


@contextmanager
def half_the_network(router):
    """IKE begins, on UDP port 500, and does not go on."""
    router.run(["nft", "-f", "-"], stdin=BLOCK.format(TARGET_ADDRESS))
    try:
        yield
    finally:
        router.run(["nft", "delete", "table", "ip", "blocked"])


def has_dropped(router):
    return "counter packets 0 " not in router.run(["nft", "list", "table", "ip", "blocked"]).stdout


def has_no_sa(charon):
    with open_session(charon.vici) as session:
        return not any(session.list_sas())


def secrets_at(charon):
    with open_session(charon.vici) as session:
        return session.get_shared()["keys"]


def kill_agents(office):
    for pid, _ in watchers(office):
        signal_inside(office, pid, signal.SIGKILL)
    wait_until(lambda: agents(office) == [], "the end of the agent")


def test_the_network_gone_for_long_costs_no_key_pair_and_nothing_leaves_in_clear(office, session):
    pairs = office.valid_pairs()
    with Capture(office.world.router) as capture, network_gone(office):
        try_in_clear(office)
    assert capture.count(CLEAR) == 0
    wait_until(partial(stands, office), "the tunnel to come back")
    assert fetches(office)
    (live,) = status(office)
    assert live["live"]["ppk"]
    assert office.valid_pairs() == pairs
    assert [tunnel["request_id"] for tunnel in office.live_tunnels()] == [session]
    office.carnet("disconnect")
    office.target_agent.wait_for_line(f'"{session}".*"event": "ended"')
    assert secrets_at(office.client_charon) == secrets_at(office.target_charon) == []


def test_a_network_that_takes_half_of_ike_costs_one_pair_and_is_named(office):
    pairs = office.valid_pairs()
    with half_the_network(office.world.router):
        for _ in range(2):
            done = office.carnet("connect", extra=office.configure_client(SOON))
            assert done.returncode == 5
            assert is_one_sentence(done)
            assert "not on UDP port 4500" in done.stderr
    connect(office)
    assert office.valid_pairs() == pairs - 1


def test_a_laptop_that_slept_comes_back(office, session):
    """Asleep are its daemon and its agent; Target gives it up meanwhile."""
    sleeping = [pid for pid, _ in watchers(office)]
    office.client_charon.freeze()
    for pid in sleeping:
        signal_inside(office, pid, signal.SIGSTOP)
    wait_until(partial(is_lost, office, office.target_charon), "Target to give it up")
    office.client_charon.thaw()
    for pid in sleeping:
        signal_inside(office, pid, signal.SIGCONT)
    office.target_agent.wait_for_line(f'"{session}".*"event": "peer-lost"')
    wait_until(lambda: not is_lost(office, office.target_charon), "the tunnel to come back")
    # Target's end stands before the Client has heard so.
    wait_until(partial(stands, office), "the tunnel to come back whole")
    assert fetches(office)
    assert [tunnel["request_id"] for tunnel in office.live_tunnels()] == [session]


def ended_by_her(office, session):
    """Target did not find out by itself, which takes it two hours."""
    office.target_agent.wait_for_line(f'"{session}".*"reason": "peer-closed".*"event": "ended"')
    return secrets_at(office.target_charon) == []


def test_a_session_that_she_ends_as_target_has_lost_her_ends_there_too(office, session):
    """Her daemon still takes it for up, and its DELETE is of an IKE_SA that Target has no more."""
    office.client_charon.freeze()
    wait_until(partial(is_lost, office, office.target_charon), "Target to give it up")
    office.client_charon.thaw()
    done = office.carnet("disconnect")
    assert (done.stdout, done.stderr) == ("Ended the tunnel to work.\n", "")
    assert ended_by_her(office, session)


def test_a_session_that_she_ends_once_both_have_lost_it_ends_at_target_too(office, session):
    kill_agents(office)
    with network_gone(office):
        pass
    assert office.carnet("disconnect").stderr == ""
    assert ended_by_her(office, session)


def test_a_target_that_cannot_be_told_is_said_to_keep_the_session(office, session):
    with network_gone(office):
        done = office.carnet("disconnect")
        assert (done.returncode, done.stdout) == (0, "Ended the tunnel to work.\n")
        assert re.fullmatch(KEPT, done.stderr)
        assert status(office) == []
        (tunnel,) = office.live_tunnels()
        office.target("tunnels", "end", tunnel["request_id"])


def is_given_up(office):
    """Tell whether her agent only waits for the end of the session."""
    (found,) = status(office)
    return found["watched"] and not found["up"] and not found["comes_back"]


def test_a_session_whose_client_is_away_ends_with_target_s_agent(office, session):
    """Nobody saw whether she ended it: the accounts say that it ended, and nothing is left."""
    with network_gone(office):
        office.target_agent.stop()
        office.target_agent = office.serve_target()
        office.target_agent.wait_for_line(f'"{session}".*"reason": "restart".*"event": "ended"')
        assert secrets_at(office.target_charon) == []
    wait_until(partial(is_given_up, office), "the agent to give up")
    assert status(office)[0]["closed"]


def test_target_s_agent_may_be_restarted_under_a_tunnel_that_stands(office, session):
    office.target_agent.stop()
    office.target_agent = office.serve_target()
    office.target_agent.wait_for_line("ike-daemon-compared")
    with network_gone(office):
        pass
    wait_until(partial(stands, office), "the tunnel to come back")
    assert [tunnel["request_id"] for tunnel in office.live_tunnels()] == [session]


def test_where_target_s_daemon_was_restarted_a_new_pair_is_needed(office, session):
    with network_gone(office):
        office.target_charon.kill()
        office.target_charon.start()
        office.target_agent.wait_for_line(f'"{session}".*ike-daemon-restarted.*"event": "ended"')
    wait_until(partial(is_given_up, office), "the agent to give up")
    (down,) = status(office)
    assert (down["up"], down["closed"]) == (False, True)
    assert office.carnet("resume").returncode == 5
    assert connect(office) != session


def test_a_session_that_was_ended_meanwhile_does_not_come_back(office, session):
    with network_gone(office):
        office.target("tunnels", "end", session)
    wait_until(lambda: agents(office) == [], "the agent to give up")
    assert not stands(office)
    assert not fetches(office)


def test_with_its_agent_killed_it_is_brought_back_by_hand(office, session):
    kill_agents(office)
    with network_gone(office):
        assert "`carnet resume work` brings it back" in office.carnet("status").stdout
    done = office.carnet("resume", "work", extra=office.configure_client(SOON))
    assert done.stdout == "The tunnel to work stands.\n"
    assert fetches(office)
    watchers(office)
    with network_gone(office):
        pass
    wait_until(partial(stands, office), "the tunnel to come back by itself")


def test_an_agent_that_is_there_is_not_doubled(office, session):
    before = watchers(office)
    assert office.carnet("resume").returncode == 0
    assert office.carnet("agent", "work").returncode == 0
    wait_until(lambda: agents(office) == before, "the second agent to leave")


def test_with_the_client_s_daemon_restarted_a_new_pair_is_needed(office, session):
    office.client_charon.kill()
    office.client_charon.start()
    assert "`carnet connect` opens a new tunnel" in office.carnet("status").stdout
    done = office.carnet("resume")
    assert done.returncode == 5
    assert "no pre-shared key of this tunnel any more; run `carnet connect`" in done.stderr
    office.target("tunnels", "end", session)


def test_where_it_is_not_to_come_back_target_ends_it(office):
    reconfigure(office, RESUME, "resume_within = 0")
    session = connect(office, SOON + "resume = false\n")
    assert secrets_at(office.client_charon) == secrets_at(office.target_charon) == []
    with network_gone(office):
        office.target_agent.wait_for_line(f'"{session}".*"reason": "peer-lost".*"event": "ended"')
    reconfigure(office, "resume_within = 0", RESUME)


def test_a_network_that_comes_back_by_halves_costs_nothing_either(office):
    """Far from the other one that leaves Target with half of a negotiation: it takes few."""
    connect(office)
    pairs, router, charon = office.valid_pairs(), office.world.router, office.client_charon
    with ExitStack() as until_then:
        with network_gone(office):
            until_then.enter_context(half_the_network(router))
        wait_until(partial(has_dropped, router), "a try to come back")
        wait_until(partial(has_no_sa, charon), "the try to be given up")
    wait_until(partial(stands, office), "the tunnel to come back")
    assert fetches(office)
    assert office.valid_pairs() == pairs


DEAF = """
add table ip deaf
add chain ip deaf input { type filter hook input priority -10; }
add rule ip deaf input udp dport 500 drop
"""


@contextmanager
def somebody_says_no(target):
    """In the place of Target's daemon, which hears of nothing."""
    target.run(["nft", "-f", "-"], stdin=DEAF)
    somebody = target.start(["python", "-m", "tests.lab.naysayer"], log="naysayer.log")
    try:
        somebody.wait_for_line("listening")
        yield somebody
    finally:
        somebody.kill()
        target.run(["nft", "delete", "table", "ip", "deaf"])


def test_a_no_that_anybody_can_say_does_not_end_a_session(office):
    session = connect(office, **office.hear())
    with ExitStack() as until_then:
        with network_gone(office):
            somebody = until_then.enter_context(somebody_says_no(office.world.target))
        wait_until(lambda: somebody.output().count("said no") > 1, "a second try")
    wait_until(partial(stands, office), "the tunnel to come back")
    assert fetches(office)
    assert [tunnel["request_id"] for tunnel in office.live_tunnels()] == [session]
    assert "says no, and does not prove to be it" in office.heard()


@pytest.fixture
def rogue(office):
    """The name of a tunnel that stands and is watched; its Target does from now on as we do."""
    request_id = connect(office, **office.hear())
    watchers(office)
    office.target_agent.kill()
    yield f"carnet-{request_id}"
    office.target_charon.assign()
    office.carnet("disconnect", "--release")
    office.target_agent = office.serve_target()


def addresses(office):
    return office.world.client.run(["ip", "-o", "address"]).stdout


def ike_sas(charon):
    with open_session(charon.vici) as session:
        return [sa["uniqueid"] for each in session.list_sas() for sa in each.values()]


def loaded(charon):
    with open_session(charon.vici) as session:
        return session.get_conns()["conns"]


def redirect(office, name):
    """Have Target's daemon send the Client to where it is already (RFC 5685)."""
    with open_session(office.target_charon.vici) as session:
        session.request("redirect", {"ike": name, "gateway": TARGET_ADDRESS})


def reauthenticate(office, name):
    """Have the Client's daemon do what it does where Target sets a time for it (RFC 4478)."""
    with open_session(office.client_charon.vici) as session:
        session.rekey({"ike": name, "reauth": "yes"})


@pytest.mark.parametrize(
    ("begin", "said"),
    # In between no tunnel may be seen to stand.
    [(redirect, "another than was agreed"), (reauthenticate, "another|does not say why")],
)
def test_another_address_is_gone_with_the_tunnel(office, rogue, begin, said):
    office.target_charon.assign(HOST_ADDRESS)
    begin(office, rogue)
    # Where Target does not say why, her agent stays to ask on.
    wait_until(lambda: re.search(said, office.heard()), "the agent to end it")
    assert HOST_ADDRESS not in addresses(office)
    assert loaded(office.client_charon) == []
    (down,) = status(office)
    assert (down["up"], down["closed"]) == (False, True)


def test_where_nothing_is_another_the_tunnel_is_watched_as_before(office, rogue):
    watched, before = watchers(office), ike_sas(office.client_charon)
    redirect(office, rogue)
    wait_until(lambda: set(ike_sas(office.client_charon)).isdisjoint(before), "the redirect")
    wait_until(partial(stands, office), "it")
    assert fetches(office)
    assert watchers(office) == watched

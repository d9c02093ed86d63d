"""carnet-helper: a user's name servers are gone with her tunnel, whatever she does about it."""

import errno
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

import carnet.service
from carnet.errors import DaemonSilentError, IPsecError
from carnet.ipsec.helper import messages as say
from carnet.supervision import Manager
from helper_agent.cli import cli
from helper_agent.config import HelperConfig
from helper_agent.name_servers import Servers
from helper_agent.owners import Owners
from helper_agent.server import Server
from helper_agent.service import Service
from lab.waiting import wait_until
from tests.notified import manager
from tests.unit.helper_world import (
    ALICE,
    AROUND,
    AWAY,
    MALLORY,
    NAME,
    OTHER,
    SERVERS,
    SPEC,
    Daemon,
    block_of,
    refused,
    spec,
    standing,
)

USE, END = say.Servers(name=NAME, servers=SERVERS), say.Down(name=NAME)
CLOSE, LIFT = say.Close(block=block_of()), say.Lift(name=NAME)
ELSEWHERE = say.Close(block=block_of(networks=("10.31.0.0/16",)))
SET = (NAME, SERVERS)
ENOUGH = threading.Event()
ENOUGH.set()
"""To look once."""


@pytest.fixture
def start(tmp_path, daemon):
    """Start the helper: another one knows what the one before it wrote down."""

    def started():
        config, owners = HelperConfig(name_servers=True), Owners(tmp_path, 2)
        return Service(config, daemon, owners, frozenset, daemon, lambda _: AROUND)

    return started


@pytest.fixture
def service(start):
    """One at which her tunnel stands."""
    made = start()
    made.obey(ALICE, say.Install(spec=spec()))
    return made


def is_lost(service, daemon):
    """Have her tunnel go by itself, and the helper look."""
    daemon.tunnels.clear()
    service.parts.name_servers.look()


def fails(*_):
    raise IPsecError("It does not take that.")


@pytest.mark.parametrize("before", [CLOSE, ELSEWHERE])
def test_they_do_not_stay_behind_a_block_that_could_not_be_made(
    service, daemon, monkeypatch, before
):
    (after,) = {CLOSE, ELSEWHERE} - {before}
    service.obey(ALICE, before)
    service.obey(ALICE, USE)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(daemon, "close", fails)
        refused(service, ALICE, after)
    is_lost(service, daemon)
    assert daemon.servers is None


@pytest.mark.parametrize(("call", "what"), [(LIFT, "lift"), (ELSEWHERE, "close")])
def test_they_go_before_their_block_does(service, daemon, monkeypatch, call, what):
    def goes(*given):
        assert daemon.servers is None
        getattr(Daemon, what)(daemon, *given)

    service.obey(ALICE, CLOSE)
    service.obey(ALICE, USE)
    is_lost(service, daemon)
    assert daemon.servers == SET
    monkeypatch.setattr(daemon, what, goes)
    service.obey(ALICE, call)


@pytest.mark.parametrize(("port", "left"), [(53, None), (853, None), (8443, SET)])
def test_they_do_not_stay_behind_a_block_that_lets_queries_through(service, daemon, port, left):
    service.obey(ALICE, say.Close(block=block_of(hosts=((*SERVERS, port),))))
    service.obey(ALICE, USE)
    is_lost(service, daemon)
    assert daemon.servers == left


def test_they_are_not_set_as_the_tunnel_ends(service, daemon, monkeypatch):
    """The end finds none to take away; with a block they would stay behind that."""

    def set_late(*what):
        service.obey(ALICE, END)
        Daemon.use_servers(daemon, *what)

    service.obey(ALICE, CLOSE)
    monkeypatch.setattr(daemon, "use_servers", set_late)
    refused(service, ALICE, USE)
    assert (daemon.ended, daemon.servers) == ([NAME], None)


def test_they_do_not_follow_a_tunnel_that_ends(service, daemon, monkeypatch):
    """Who follows takes them away first: the end finds none, and then her name is let go."""

    def follow(name):
        assert Daemon.restore_servers(daemon, name)
        service.obey(ALICE, END)
        daemon.servers = SET

    service.obey(ALICE, USE)
    monkeypatch.setattr(daemon, "follow_servers", follow)
    service.obey(ALICE, say.Follow(name=NAME))
    assert (daemon.ended, daemon.servers) == ([NAME], None)


def test_one_at_a_time_sets_and_restores_them(service, daemon, monkeypatch):
    done = []

    def watch(what):
        def alone(*given):
            assert service.parts.name_servers._lock.locked()
            done.append(what)
            return getattr(Daemon, what)(daemon, *given)

        monkeypatch.setattr(daemon, what, alone)

    ways = ["use_servers", "follow_servers", "restore_servers"]
    for each in ways:
        watch(each)
    for call in (USE, say.Follow(name=NAME), END):
        service.obey(ALICE, call)
    assert done == ways


def test_nobody_waits_for_another_user_s(service, daemon, monkeypatch):
    service.obey(MALLORY, say.Install(spec=spec(name=OTHER, **AWAY)))
    ends = (say.Restore(name=NAME), LIFT, END)

    def slow(*what):
        assert [threads.submit(service.obey, ALICE, each).result(30) for each in ends]
        return Daemon.use_servers(daemon, *what)

    monkeypatch.setattr(daemon, "use_servers", slow)
    with ThreadPoolExecutor(1) as threads:
        service.obey(MALLORY, say.Servers(name=OTHER, servers=("10.30.0.1",)))
    assert daemon.servers == (OTHER, ("10.30.0.1",))


@pytest.mark.parametrize(
    "calls", [(CLOSE, USE, END), (CLOSE, USE, LIFT), (USE, say.Leave(name=NAME))]
)
def test_they_go_where_the_rest_fails(service, daemon, monkeypatch, calls):
    """As by a daemon that is killed then."""

    def goes(*_):
        daemon.tunnels.clear()
        if LIFT in calls:
            daemon.blocks.clear()
        raise DaemonSilentError("It does not answer.")

    for call in calls[:-1]:
        service.obey(ALICE, call)
    for each in ("down", "lift", "take_leave"):
        monkeypatch.setattr(daemon, each, goes)
    refused(service, ALICE, calls[-1])
    assert daemon.servers is None


class Killed(BaseException):
    """The helper is, and does nothing any more."""


@pytest.mark.parametrize(
    ("calls", "last"),
    [
        ((USE,), "use_servers"),
        ((USE, END), "down"),
        ((CLOSE, USE, LIFT), "lift"),
        ((CLOSE, USE, ELSEWHERE), "close"),
    ],
    ids=["set", "down", "lifted", "closed elsewhere"],
)
def test_the_next_helper_finds_what_one_that_was_killed_has_left(
    service, start, daemon, monkeypatch, calls, last
):
    def killed(*what):
        if last == "use_servers":  # as another thread of hers does
            daemon.tunnels.clear()
            service.obey(ALICE, say.Restore(name=NAME))
        getattr(Daemon, last)(daemon, *what)
        raise Killed

    for call in calls[:-1]:
        service.obey(ALICE, call)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(daemon, last, killed)
        for afterwards in ("look", "restore"):
            meanwhile.setattr(Servers, afterwards, lambda *_: False)
        with pytest.raises(Killed):
            service.obey(ALICE, calls[-1])
    assert daemon.servers == SET
    daemon.tunnels.clear()
    start().look_on(ENOUGH)
    assert daemon.servers is None


def test_what_nobody_told_of_and_could_not_be_restored_is_restored_later(
    service, daemon, monkeypatch
):
    troubles = [fails, lambda _: 1 // 0, lambda _: False]

    def restore(name):
        return troubles.pop()(name) if troubles else Daemon.restore_servers(daemon, name)

    service.obey(ALICE, USE)
    monkeypatch.setattr(daemon, "restore_servers", restore)
    daemon.tunnels.clear()
    enough = threading.Event()
    looking = threading.Thread(target=service.look_on, args=(enough, 0))
    looking.start()
    try:
        wait_until(lambda: daemon.servers is None, "the fourth try")
    finally:
        enough.set()
        looking.join()


@pytest.mark.parametrize(
    "less",
    [
        {"remote_selectors": ("10.20.0.0/29",)},
        {"other_peers": ("203.0.113.2",)},
        {"remote_selectors": (None,)},
    ],
)
def test_they_are_not_asked_beside_what_stands_for_less_than_was_installed(
    service, daemon, monkeypatch, less
):
    """As her Target may have it while she takes leave, and the guard looks on later."""
    service.obey(ALICE, USE)
    monkeypatch.setattr(daemon, "status", lambda: [standing(SPEC, **less)])
    service.look_on(ENOUGH)
    assert daemon.servers is None
    refused(service, ALICE, USE)
    assert daemon.servers is None


def times(number):
    """Return what has look_on() look so many times."""
    left = iter([False] * (number - 1) + [True])
    return SimpleNamespace(wait=lambda _: next(left))


def test_a_look_that_fails_is_said_once_for_each_fault_and_that_it_is_over(
    service, daemon, monkeypatch
):
    faults = [ValueError("It is none.")] * 2 + [OSError(errno.ENOSPC, "Full")] * 3

    def whose():
        if faults:
            raise faults.pop()

    monkeypatch.setattr(daemon, "whose_servers", whose)
    with capture_logs() as logs:
        service.look_on(times(7))
    assert [(each["event"], each.get("reason"), "exc_info" in each) for each in logs] == [
        ("look-failed", f"OSError: [Errno {errno.ENOSPC}] Full", True),
        ("look-failed", "ValueError: It is none.", True),
        ("looked-again", None, False),
    ]


@pytest.mark.parametrize("stay", [fails, lambda _: False])
def test_those_that_stay_are_said_once_until_they_go(service, daemon, monkeypatch, stay):
    tries = [True, False, False, False]

    def restore(name):
        return Daemon.restore_servers(daemon, name) if tries.pop() else stay(name)

    monkeypatch.setattr(daemon, "restore_servers", restore)
    stands = dict(daemon.tunnels)
    with capture_logs() as logs:
        for _ in range(2):
            daemon.tunnels = dict(stands)
            service.obey(ALICE, USE)
            daemon.tunnels.clear()
            service.look_on(times(len(tries) + 1))
            tries = [True, False, False]
    assert [each["event"] for each in logs] == ["name-servers-stay", "name-servers-taken-away"] * 2


def test_those_that_lie_over_each_other_all_go(service, daemon, monkeypatch):
    lies = [SET, SET]

    def restore(name):
        daemon.servers = lies.pop() if lies else None
        return True

    service.obey(ALICE, USE)
    monkeypatch.setattr(daemon, "restore_servers", restore)
    assert service.obey(ALICE, say.Restore(name=NAME)) is True
    assert daemon.servers is None


def test_they_stay_where_one_listing_misses_the_tunnel(service, daemon, monkeypatch):
    """As while its peer rekeys it."""
    service.obey(ALICE, USE)
    listings = [[standing(SPEC)], []]
    monkeypatch.setattr(daemon, "status", listings.pop)
    service.parts.name_servers.look()
    assert (listings, daemon.servers) == ([], SET)


@pytest.mark.parametrize(
    ("closed", "asked", "left"),
    [(True, "status", SET), (True, "names", None), (False, "status", None)],
)
def test_what_cannot_be_asked_holds_nothing_back(service, daemon, monkeypatch, closed, asked, left):
    if closed:
        service.obey(ALICE, CLOSE)
    service.obey(ALICE, USE)
    monkeypatch.setattr(daemon, asked, fails)
    is_lost(service, daemon)
    assert daemon.servers == left


@pytest.mark.parametrize(
    ("error", "left"),
    [(DaemonSilentError("It does not answer."), SET), (IPsecError("None."), None)],
)
def test_nothing_is_done_by_itself_while_the_daemon_is_silent(
    service, daemon, monkeypatch, error, left
):
    """Its tunnels stand; those of one that is gone do not."""

    def status():
        raise error

    service.obey(ALICE, USE)
    monkeypatch.setattr(daemon, "status", status)
    service.look_on(ENOUGH)
    assert daemon.servers == left


def test_what_root_has_set_is_left_alone(service, daemon):
    daemon.servers = (OTHER, SERVERS)
    service.parts.name_servers.look()
    assert daemon.servers == (OTHER, SERVERS)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the helper's command, but for what tests have no business with."""
    config = tmp_path / "helper.toml"
    config.write_text(
        f'directory = "{tmp_path}/run"\nsocket = "{tmp_path}/socket"\ngroup = "{os.getgid()}"\n'
    )
    config.chmod(0o600)
    monkeypatch.setattr(carnet.service, "start_log", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda: CliRunner().invoke(cli, ["--config", str(config), "serve"])


def test_the_helper_begins_to_look_before_it_serves(run, monkeypatch):
    looks = threading.Event()
    monkeypatch.setattr(Service, "look_on", lambda *_: looks.set())
    monkeypatch.setattr(Server, "serve", lambda *_: looks.wait(60))
    done = run()
    assert (done.exit_code, looks.is_set()) == (0, True), done.output


def test_the_service_manager_hears_of_the_helper_only_while_all_of_it_works(
    run, monkeypatch, tmp_path
):
    """Three times in each period; what does not work is one of the parts that it is made of."""
    looks, made = threading.Event(), []

    def look_on(service, *_):
        made.append(service)
        looks.set()

    def serve(server, alive, every):
        assert looks.wait(60)
        alive()
        made[0].parts.guard._pausing = True
        alive()
        made[0].parts.guard._pausing = False
        alive()
        assert every == pytest.approx(0.1)

    monkeypatch.setattr(Service, "look_on", look_on)
    monkeypatch.setattr(Server, "serve", serve)
    with manager(tmp_path) as heard, capture_logs() as logged:
        for name, value in {**heard.environment, "WATCHDOG_USEC": "300000"}.items():
            monkeypatch.setenv(name, value)
        done = run()
        assert done.exit_code == 0, done.exception
        Manager(dict(heard.environment)).stopping()
        assert heard.until("STOPPING=1") == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]
    assert [each["failed"] for each in logged if "failed" in each] == [["guard"]]

"""What comes back, and what never can: the Client's own judgement, before IKE."""

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
from filelock import FileLock, Timeout
from msgspec.structs import replace

from carnet.errors import DaemonSilentError, IKERefusedError
from carnet.ipsec.driver import TunnelStatus
from carnet.ipsec.spec import Role
from tests.unit.test_sessions import a_session
from token_client import background, config, locks, mtu, returning, watched, went
from token_client.commands import resume
from token_client.config import ClientConfig
from token_client.describing import describe, facts
from token_client.session_states import BY_HAND, Released, State
from token_client.sessions import SessionStore
from token_client.status import TunnelState

LATER = 4_102_444_800
LIVE = TunnelStatus(
    name="carnet-00",
    role=Role.CLIENT,
    established=True,
    local_address="192.0.2.1",
    remote_address="198.51.100.2",
    virtual_address="10.30.0.1",
    ike_suite="AES_GCM_16-256",
    child_suite="ESP AES_GCM_16-256",
    encapsulated=False,
    ppk=True,
    bytes_in=1,
    bytes_out=2,
    established_seconds=54,
)


def test_a_session_is_brought_back_by_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(returning, "memory_directory", lambda: tmp_path)

    def resume(name):
        with pytest.raises(Timeout), FileLock(tmp_path / f"coming-back-{name}.lock", timeout=0):
            pass
        return LIVE

    returning.bring_back(SimpleNamespace(resume=resume), a_session(expires=LATER))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "narrowed",
    [
        {"remote_selectors": ("10.20.0.1..10.20.255.254",)},
        {"local_selectors": ("10.30.0.1/32[udp/53]",)},
        {"remote_address": "%any"},
    ],
    ids=str,
)
def test_what_comes_back_as_a_part_of_its_networks_is_ended(tmp_path, monkeypatch, narrowed):
    monkeypatch.setattr(returning, "memory_directory", lambda: tmp_path)
    ended = []
    session = a_session(
        expires=LATER,
        ppk=True,
        networks=("10.20.0.0/16",),
        virtual_address=LIVE.virtual_address,
        target_addresses=(LIVE.remote_address,),
    )
    whole = replace(
        LIVE, local_selectors=("10.30.0.1/32",), remote_selectors=("10.20.0.0/255.255.0.0",)
    )
    for live in (whole, replace(whole, **narrowed)):
        daemon = SimpleNamespace(resume=lambda _, live=live: live, down=ended.append)
        with nullcontext() if live is whole else pytest.raises(IKERefusedError, match="another"):
            returning.bring_back(daemon, session)
    assert ended == [session.name]


def test_what_is_over_is_not_brought_back():
    with pytest.raises(IKERefusedError, match="to work is over; run `carnet connect`"):
        returning.bring_back(SimpleNamespace(), a_session(expires=1))


@pytest.mark.parametrize(
    ("ends", "brought"), [((1, LATER), ["carnet-1"]), ((1, 1), ["carnet-0", "carnet-1"])]
)
def test_what_is_over_keeps_no_other_from_coming_back(tmp_path, monkeypatch, ends, brought):
    """Where nothing else is known of, it is said to be over."""
    store, back = SessionStore(tmp_path), []
    for number, expires in enumerate(ends):
        store.keep(a_session(name=f"carnet-{number}", established_at=number, expires=expires))
    monkeypatch.setattr(resume, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(config, "load", ClientConfig)
    monkeypatch.setattr(resume, "driver", lambda *_: None)
    monkeypatch.setattr(resume, "bring_back", lambda _, session: back.append(session.name))
    monkeypatch.setattr(background, "start", lambda *_: True)
    monkeypatch.setattr(mtu, "fit", lambda _: None)
    resume.resume.callback(tunnel=None, as_json=True)
    assert back == brought


ASKS = "asks the Host until Target has said why"
KNOWS = "looks after the token until the time of this one is over"


@pytest.mark.parametrize(
    ("watched_over", "expires", "agent", "untold", "does"),
    [
        (False, LATER, True, None, ASKS),
        (False, LATER, True, True, ASKS),
        (False, LATER, True, False, KNOWS),
        (True, LATER, True, None, None),
        (False, 1, True, None, None),
        (False, LATER, False, None, None),
    ],
    ids=["killed", "killed as it asked", "killed as it knew", "asks on", "over", "none wanted"],
)
def test_what_does_not_come_back_and_nobody_sees_to_is_seen_to_again(
    tmp_path, monkeypatch, watched_over, expires, agent, untold, does
):
    """Host is asked about it only where nobody has said why it went."""

    def never(name):
        raise IKERefusedError("Run `carnet connect` for a new one.")

    started = []
    state = {None: State.STANDING, True: State.UNTOLD, False: State.GONE}[untold]
    SessionStore(tmp_path).keep(a_session(state, "It went.", expires=expires))
    for module in (background, resume, returning, watched, went):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(config, "load", lambda: ClientConfig(agent=agent))
    monkeypatch.setattr(resume, "driver", lambda *_: SimpleNamespace(resume=never))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    by = watched.watching("carnet-00") if watched_over else nullcontext()
    with by, pytest.raises(IKERefusedError) as refused:
        resume.resume.callback(tunnel=None, as_json=False)
    assert started == [background.command_of("carnet-00")] * (does is not None)
    assert "run `carnet connect` for a new one" in refused.value.sentence.lower()
    assert [each for each in (ASKS, KNOWS) if each in refused.value.sentence] == [does] * len(
        started
    )


def test_of_a_session_that_was_released_no_more_is_said_than_that(tmp_path, monkeypatch, capsys):
    store = SessionStore(tmp_path)
    store.keep(a_session(expires=LATER))
    store.change("carnet-00", Released(BY_HAND))
    monkeypatch.setattr(resume, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(config, "load", lambda: ClientConfig(agent=False))
    resume.resume.callback(tunnel=None, as_json=False)
    said = capsys.readouterr()
    assert said.out == ""
    assert "released by hand and does not come back" in said.err


@pytest.mark.parametrize("agent", [True, False])
def test_what_may_come_back_when_the_daemon_answers_is_watched_over(tmp_path, monkeypatch, agent):
    def silent(name):
        raise DaemonSilentError("It does not answer.")

    started = []
    SessionStore(tmp_path).keep(a_session(expires=LATER))
    for module in (background, resume, returning):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(config, "load", lambda: ClientConfig(agent=agent))
    monkeypatch.setattr(resume, "driver", lambda *_: SimpleNamespace(resume=silent))
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: started.append(command))
    with pytest.raises(DaemonSilentError):
        resume.resume.callback(tunnel=None, as_json=False)
    assert started == [background.command_of("carnet-00")] * agent


@pytest.mark.parametrize(
    ("live", "expires", "said"),
    [
        (LIVE, 1, "s, though its time is over: `carnet disconnect work` ends it"),
        (None, 1, "its time is over; down; `carnet connect` opens a new tunnel"),
        (None, LATER, "down; `carnet resume work` brings it back"),
    ],
)
def test_of_what_is_over_it_is_said(live, expires, said):
    state = TunnelState("carnet-00", a_session(expires=expires), live, False, True, watched=True)
    assert said in describe(state)


def test_what_stands_is_as_old_as_its_session_and_not_as_its_newest_keys():
    session = a_session(established_at=int(time.time()) - 7300, expires=LATER)
    shown = describe(TunnelState("carnet-00", session, LIVE, False, True, watched=True))
    assert "up for 2h1m4" in shown
    assert "1 bytes in, 2 bytes out under its newest keys" in shown
    unrecorded = TunnelState("carnet-00", None, LIVE, False, True, watched=True)
    assert "up for at least 54s\n" in describe(unrecorded)


FORSAKEN = "nobody watches over it and its token: `carnet resume work` starts what does"


@pytest.mark.parametrize(
    ("seen", "stood", "session", "said"),
    [
        (False, 10, a_session(expires=LATER), True),
        (False, 9, a_session(expires=LATER), False),
        (True, 10, a_session(expires=LATER), False),
        (False, 10, None, False),
    ],
    ids=["killed", "just beginning", "watched", "no record"],
)
def test_of_what_nobody_watches_over_it_is_said(seen, stood, session, said):
    live = replace(LIVE, established_seconds=stood)
    state = TunnelState("carnet-00", session, live, False, True, seen)
    assert (FORSAKEN in describe(state)) == said
    assert facts(state)["watched"] == seen


ASKS_ON = "the agent of this machine asks the Host why it went down until Target has said so"
BRINGS_BACK = "the agent of this machine brings it back as soon as Target answers"
WHY = "The tunnel to work has ended: Target was started anew."
MAY_COME_UP = "the agent of this machine watches over it where it comes up after all"
NOBODY_ASKS = "nor asks why it went down: `carnet resume work` starts what does"


@pytest.mark.parametrize(
    ("live", "comes_back", "seen", "session", "said"),
    [
        (None, False, True, a_session(expires=LATER), ASKS_ON),
        (None, True, True, a_session(expires=LATER), BRINGS_BACK),
        (None, False, False, a_session(expires=LATER), NOBODY_ASKS),
        (None, True, False, a_session(expires=LATER), None),
        (None, False, True, a_session(expires=1), None),
        (None, False, True, a_session(State.ENDED, "Its time is over.", expires=LATER), None),
        (LIVE, False, True, a_session(expires=LATER), None),
        (None, False, True, a_session(State.UNTOLD, WHY, expires=LATER), ASKS_ON),
        (None, False, True, a_session(State.GONE, WHY, expires=LATER), WHY),
        (None, False, False, a_session(State.GONE, WHY, expires=LATER), WHY),
        (None, False, True, a_session(State.UNSEEN, expires=LATER), MAY_COME_UP),
        (None, True, True, a_session(State.UNSEEN, expires=LATER), MAY_COME_UP),
        (None, False, False, a_session(State.UNSEEN, expires=LATER), None),
    ],
    ids=[
        *("untold", "lost", "untold, nobody", "lost, nobody", "over", "ended", "stands"),
        *("not told then", "told", "told, nobody", "unseen", "unseen, to come", "unseen, nobody"),
    ],
)
def test_what_the_agent_does_for_what_is_down_is_said(live, comes_back, seen, session, said):
    state = TunnelState("carnet-00", session, live, True, comes_back, seen)
    known = (ASKS_ON, BRINGS_BACK, NOBODY_ASKS, WHY, MAY_COME_UP)
    assert [each for each in known if each in describe(state)] == ([said] if said else [])
    looks = "looks after" in describe(state)
    assert looks == (said is not None), "who looks after the token is said where it is down"
    assert facts(state)["asked_on"] == (said == ASKS_ON)
    unseen = "not up yet, and closed: nothing leaves for it in clear; `carnet connect` goes on"
    assert (unseen in describe(state)) == session.stage.is_unseen


def test_who_watches_is_seen_and_kept_from_nothing_by_that(tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "memory_directory", lambda: tmp_path)
    assert not watched.is_watched(tmp_path, "carnet-00")
    with watched.watching("carnet-00") as alone:
        assert alone
        assert watched.is_watched(tmp_path, "carnet-00")
        assert not watched.is_watched(tmp_path, "carnet-01")
        monkeypatch.setattr(watched, "_SECONDS", 0)
        with watched.watching("carnet-00") as another:
            assert not another
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "agent-carnet-00.lock").touch()  # as of one that was killed
    assert not watched.is_watched(tmp_path, "carnet-00")


def test_who_only_looks_keeps_nobody_from_watching(tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "memory_directory", lambda: tmp_path)
    looks = (tmp_path / "agent-carnet-00.lock").open("w")
    fcntl.flock(looks, fcntl.LOCK_SH)
    pauses = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: looks.close())
    monkeypatch.setattr(locks, "time", pauses)
    with watched.watching("carnet-00") as alone:
        assert alone


SUPERVISED = """
import os
import sys
from pathlib import Path
from tests.unit.test_sessions import a_session
from token_client import supervising, watched
from token_client.config import ClientConfig
directory = Path(sys.argv[1])
supervising.memory_directory = watched.memory_directory = lambda: directory
supervising.is_known, watched._SECONDS = lambda *_: True, 0
def work():
    print(os.getpid(), flush=True)
    sys.stdin.read()
supervising.supervise(work, None, a_session(name="carnet-00"), ClientConfig())
"""


@pytest.fixture
def supervised(tmp_path, monkeypatch):
    """A supervisor, and the process id of its worker, which ends with the input."""
    monkeypatch.setattr(watched, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(watched, "_SECONDS", 0)
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as supervisor:
        try:
            yield supervisor, int(supervisor.stdout.readline())
        finally:
            supervisor.kill()  # where it is stopped too; its worker ends with the input


def test_a_worker_whose_supervisor_was_killed_watches_on_and_alone(tmp_path, supervised):
    supervisor, _ = supervised
    supervisor.kill()
    supervisor.wait()
    assert watched.is_watched(tmp_path, "carnet-00")
    with watched.watching("carnet-00") as another:
        assert not another
    supervisor.stdin.close()
    assert supervisor.stdout.read() == b""  # the worker has ended
    assert not watched.is_watched(tmp_path, "carnet-00")


def test_a_supervisor_that_stands_still_hides_from_nobody_that_its_worker_is_gone(
    tmp_path, supervised
):
    """Who takes its place watches on alone once it goes on."""
    supervisor, worker = supervised
    supervisor.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, supervisor.pid, os.WSTOPPED | os.WNOWAIT)
    with open_process(worker) as ended:
        os.kill(worker, signal.SIGKILL)
        select.select([ended], [], [], 30)
    assert not watched.is_watched(tmp_path, "carnet-00")
    with watched.watching("carnet-00") as alone:
        assert alone
        supervisor.send_signal(signal.SIGCONT)
        assert supervisor.wait(30) == 0
        assert supervisor.stdout.read() == b""  # nobody has worked beside
        assert watched.is_watched(tmp_path, "carnet-00")


@contextmanager
def open_process(pid):
    """Yield what can be read once a process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"remote_address": "2001:db8::2"}, "went to 2001:db8::2, another than was agreed for"),
        ({"other_peers": ("203.0.113.7",)}, "went to 203.0.113.7, another than was agreed for"),
        ({"remote_address": "203.0.113.7", "ppk": False}, "became another than was agreed, so"),
        ({"virtual_address": "10.30.0.9"}, "became another than was agreed, so"),
        ({"virtual_address": None, "role": Role.TARGET}, "cannot be read any more, so that nobody"),
    ],
)
def test_a_tunnel_that_went_elsewhere_is_said_to_have_done_so(differs, said):
    session = a_session(target_addresses=("198.51.100.2",))
    down = []
    with pytest.raises(IKERefusedError, match=said):
        returning.end_another(SimpleNamespace(down=down.append), session, replace(LIVE, **differs))
    assert down == [session.name]

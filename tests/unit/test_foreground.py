"""What becomes of a session with which `carnet connect --foreground` stayed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest

from carnet.errors import (
    DaemonSilentError,
    IPsecError,
    NothingLeftError,
    TokenError,
    TunnelLeftError,
)
from carnet.ipsec import patience
from tests.unit.test_sessions import a_session
from token_client import background, closing, foreground, known, opening, went
from token_client.config import ClientConfig
from token_client.ending import Ending
from token_client.heir import Heir
from token_client.session_states import BY_HAND, EndBegun, Released, Stage, State
from token_client.sessions import SessionStore

PULLED = Ending("Token t was pulled out.", pulled=True)
DOOMED = Ending("The tunnel to work was ended by another command.")
WITH_DAEMON = Ending("The tunnel to work went down with this machine's own IKE daemon.")
GONE = NothingLeftError("There is no daemon.")


class Gone:
    """An IPsec daemon that is gone."""

    def refuse(self, *_):
        raise GONE

    down = take_leave = installed = refuse


class Left(Gone):
    """One that is gone, and whose tunnel goes on in the kernel."""

    def down(self, *_):
        raise TunnelLeftError("There is no daemon, and its tunnel goes on.")


class Silent:
    """An IPsec daemon that does not answer so many times, and then ends the tunnel."""

    def __init__(self, times):
        self.times = times

    def down(self, _):
        if self.times:
            self.times -= 1
            raise DaemonSilentError("The daemon does not answer.")

    def take_leave(self, _):
        return True


@pytest.fixture
def started(tmp_path, monkeypatch):
    """For which sessions an agent was started; there is a record of one."""
    found = []
    for module in (known, foreground, went):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(foreground, "watching", lambda _: nullcontext(True))
    monkeypatch.setattr(foreground, "lookout", lambda *_: None)
    monkeypatch.setattr(foreground, "may_be_kept", lambda *_: None)
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(background, "start", lambda session, _: not found.append(session.name))
    return found


def stay(monkeypatch, tmp_path, outcome, daemon=None, tell=str, **configured):
    class Watch:
        def __init__(self, *_):
            pass

        def run(self):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

    monkeypatch.setattr(foreground, "Watch", Watch)
    until, config = int(time.time()) + 3600, ClientConfig(**configured)
    store, session = SessionStore(tmp_path), a_session(expires=until, block="nft")
    store.keep(session)
    leave = Heir(config).begin_if_it_can
    foreground.stay(daemon or Gone(), session, config, tell, lambda: None, leave)


def never(_):
    raise AssertionError("nothing is left to an agent")


def left(directory):
    return [each.name for each in SessionStore(directory).all()]


@pytest.mark.parametrize("outcome", [WITH_DAEMON, GONE], ids=["it went", "it is not there"])
def test_what_is_left_of_a_session_whose_daemon_is_gone_is_the_agent_s(
    tmp_path, started, monkeypatch, outcome
):
    """Its block stays, and somebody is to lift it when the time is over."""
    told = []
    with pytest.raises(IPsecError):
        stay(monkeypatch, tmp_path, outcome, tell=told.append)
    assert started == left(tmp_path) == ["carnet-00"]
    assert told == []


@pytest.mark.parametrize(
    ("outcome", "error"), [(PULLED, TokenError), (KeyboardInterrupt(), KeyboardInterrupt)], ids=str
)
def test_what_is_over_ends_though_the_daemon_is_gone(
    tmp_path, started, monkeypatch, outcome, error
):
    with pytest.raises(error):
        stay(monkeypatch, tmp_path, outcome)
    assert started == left(tmp_path) == []


def test_what_ctrl_c_cannot_end_stays_known_and_watched(tmp_path, started, monkeypatch):
    """Its block stays, and the agent sees to its token and its time."""
    with pytest.raises(TunnelLeftError):
        stay(monkeypatch, tmp_path, KeyboardInterrupt(), Left())
    assert started == left(tmp_path) == ["carnet-00"]


def test_who_wants_no_agent_is_told_what_is_left(tmp_path, started, monkeypatch):
    """Nobody lifts the block in its time."""
    told = []
    with pytest.raises(IPsecError, match="went down with"):
        stay(monkeypatch, tmp_path, WITH_DAEMON, tell=told.append, agent=False)
    (sentence,) = told
    assert "held back until `carnet disconnect`" in sentence
    assert (started, left(tmp_path)) == ([], ["carnet-00"])


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (PULLED, "Token t was pulled out."),
        (DOOMED, None),
        (KeyboardInterrupt(), None),
        (
            TokenError("The module crashed."),
            "What watched over the tunnel to work failed (The module crashed), so it was ended.",
        ),
    ],
    ids=["token", "another command", "Ctrl-C", "module"],
)
def test_an_end_that_fails_is_the_agent_s_to_go_on_with(
    tmp_path, started, monkeypatch, outcome, why
):
    """And its record says why it is to end."""

    def refuse(*_):
        raise IPsecError("The packet filter refuses.")

    store = SessionStore(tmp_path)
    monkeypatch.setattr(closing, "release", refuse)
    store.keep(a_session())
    if outcome is DOOMED:
        store.change("carnet-00", EndBegun())
        monkeypatch.setattr(SessionStore, "keep", lambda *_: None)
    with pytest.raises(IPsecError, match="packet filter refuses"):
        stay(monkeypatch, tmp_path, outcome, Silent(0))
    assert started == left(tmp_path) == ["carnet-00"]
    assert [each.stage for each in store.all()] == [Stage(State.TO_END, why)]


@pytest.mark.parametrize("ended", [True, False])
def test_the_agent_in_waiting_begins_where_anything_of_the_session_is_left(
    tmp_path, started, monkeypatch, ended
):
    class Waiting(Heir):
        def _let_go(self, word):
            words.append(word)

    def stay(*_):
        if ended:
            store.drop("carnet-00")
        raise KeyboardInterrupt

    store, words = SessionStore(tmp_path), []
    store.keep(a_session())
    monkeypatch.setattr(foreground, "stay", stay)
    standing = opening._Standing(Waiting(ClientConfig()))
    opening._stay(Gone(), a_session(), ClientConfig(), str, str, standing)
    assert words == [b"\n" if ended else b""]


class Had:
    """A daemon that has a tunnel until it is taken out."""

    def __init__(self):
        self.has = {"carnet-00"}

    def down(self, name):
        self.has.discard(name)

    def installed(self):
        return self.has


def test_what_it_took_out_itself_the_agent_does_not_take_for_the_daemon_s_doing(
    tmp_path, started, monkeypatch
):
    untold = Ending("The tunnel to work went down, and Target does not say why.", untold=True)
    with pytest.raises(IPsecError, match="does not say why"):
        stay(monkeypatch, tmp_path, untold, Had())
    assert started == ["carnet-00"]
    assert went.why_down(a_session()) == replace(untold, meant=True)


@pytest.mark.parametrize("agent", [True, False])
def test_what_may_stand_is_ended_by_an_agent_or_here(tmp_path, started, monkeypatch, agent):
    """A daemon that is silent may have it, and nobody would look at its token or its time."""
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.001)
    daemon, outcome, told = Silent(3), TokenError("The module crashed."), []
    with pytest.raises(DaemonSilentError if agent else TokenError):
        stay(monkeypatch, tmp_path, outcome, daemon, told.append, agent=agent)
    assert len(told) == (0 if agent else 1)
    assert started == left(tmp_path) == ["carnet-00"] * agent
    assert (daemon.times == 0) is not agent


@pytest.mark.parametrize("released", [True, False], ids=["--release", "disconnect"])
def test_what_another_command_has_ended_is_not_called_lost(
    tmp_path, started, monkeypatch, released
):
    """And what the daemon still has of it, since it was silent then, goes with this one."""
    store, daemon, told = SessionStore(tmp_path), Silent(2), []

    class Watch:
        def __init__(self, *_):
            pass

        def run(self):
            store.change("carnet-00", Released(BY_HAND)) if released else store.drop("carnet-00")
            return Ending("Target lost sight of this machine.")

    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(foreground, "Watch", Watch)
    session = a_session(expires=int(time.time()) + 3600)
    store.keep(session)
    with pytest.raises(IPsecError, match="ended by another command"):
        foreground.stay(daemon, session, ClientConfig(), told.append, lambda: None, never)
    assert (daemon.times, left(tmp_path), started) == (0, [], [])


@pytest.mark.parametrize("whole", [True, False], ids=["ended", "only begun"])
def test_what_target_may_keep_is_said_by_who_ends_it(tmp_path, started, monkeypatch, whole):
    """Of an end that another command has only written down, that is this one."""
    store, told = SessionStore(tmp_path), []

    class Watch:
        def __init__(self, *_):
            pass

        def run(self):
            store.drop("carnet-00") if whole else store.change("carnet-00", EndBegun())
            return DOOMED

    monkeypatch.setattr(foreground, "may_be_kept", lambda *_: "Target may keep it.")
    monkeypatch.setattr(foreground, "Watch", Watch)
    store.keep(a_session())
    with pytest.raises(IPsecError, match="ended by another command"):
        foreground.stay(Silent(0), a_session(), ClientConfig(), told.append, lambda: None, never)
    assert told == ([] if whole else ["Target may keep it."])
    assert left(tmp_path) == []


STAYS = """
import signal, threading
from functools import partial
from types import SimpleNamespace
from token_client import foreground, opening

def stay(*_):
    signal.raise_signal(signal.SIGTTOU)
    signal.raise_signal(signal.SIGTSTP)
    for each in threading.enumerate():
        if each.name == "not stopped":
            each.join()

foreground.stay, opening.is_recorded, say = stay, lambda _: False, partial(print, flush=True)
heir = SimpleNamespace(begin_if_it_can=None, dismiss=lambda: say("ended"))
opening._stay(None, None, None, None, say, SimpleNamespace(heir=heir))
signal.raise_signal(signal.SIGTSTP)
"""
"""What a command does with which Ctrl-Z is pressed, and that writes in the background."""


def test_ctrl_z_leaves_no_tunnel_unwatched(tmp_path):
    """Nobody else would see that its token is pulled; afterwards it stops as any command does."""
    said = tmp_path / "said"
    with said.open("w") as output:
        command = subprocess.Popen(
            [sys.executable, "-c", STAYS], stdout=output, text=True, process_group=0
        )
    try:
        assert os.WIFSTOPPED(os.waitpid(command.pid, os.WUNTRACED)[1])
        sentence, ended = said.read_text().splitlines()
        assert "is not stopped: Ctrl-C ends the tunnel" in sentence
        assert ended == "ended"
        command.send_signal(signal.SIGCONT)
        assert command.wait() == 0
    finally:
        command.kill()
        command.wait()

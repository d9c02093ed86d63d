"""What becomes of a tunnel that came up, or did not, while its daemon was silent."""

import threading
import time
from types import SimpleNamespace

import pytest

from carnet.errors import DaemonSilentError
from carnet.ipsec import patience
from carnet.token.presence import Presence
from tests.unit.test_sessions import a_session
from token_client import alone, announce, known, late, supervising, watch
from token_client.config import ClientConfig
from token_client.ending import Ending
from token_client.session_states import State
from token_client.sessions import SessionStore

PULLED = Ending("Token alice was pulled out.", pulled=True)


class Daemon:
    """One that is silent so many times, and then has the tunnel or has none."""

    def __init__(self, *, stands, silent=2):
        self.stands, self.silent, self.ended = stands, silent, []

    def status(self):
        if self.silent:
            self.silent -= 1
            raise DaemonSilentError("It does not answer.")
        return [SimpleNamespace(name="carnet-00", established=True)] if self.stands else []

    def installed(self):
        return {live.name for live in self.status()}

    def down(self, name):
        self.ended.append(name)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The records, in which there is one of a tunnel that nobody has seen stand."""
    for module in (alone, known, late):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(late, "release", SessionStore.drop)
    monkeypatch.setattr(late, "LATE_SECONDS", 0)
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.001)
    made = SessionStore(tmp_path)
    made.keep(a_session(State.UNSEEN, expires=int(time.time()) + 3600))
    return made


def settled(daemon, store):
    """Return the session that its agent watches over, if it does, and what is said."""
    said = []
    return late.seen(daemon, store.all()[0], said.append), said


def test_what_came_up_after_all_is_watched_over(store, monkeypatch):
    watched, ended, said = [], [], []

    class Watch:
        def __init__(self, _, session, *__):
            watched.append(session)

        def until_told(self, ask):
            return ask()

        def run(self):
            return PULLED

    monkeypatch.setattr(watch, "Watch", Watch)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    monkeypatch.setattr(announce, "announce", said.append)
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked[2]))
    supervising.work(Daemon(stands=True), store.all()[0], ClientConfig(), str)
    assert watched[1:] == store.all()
    assert not watched[1].stage.is_unseen
    assert ended == [PULLED.sentence]
    assert said == ["The tunnel to work came up after all; `carnet disconnect` ends it."]


def test_of_what_did_not_come_up_nothing_is_left(store):
    daemon = Daemon(stands=False)
    assert settled(daemon, store) == (None, [])
    assert (daemon.ended, store.all()) == (["carnet-00"], [])


def test_what_her_command_has_gone_on_with_meanwhile_is_its_own(store):
    """Though it stands no more: whoever watches over it finds out."""
    daemon, session = Daemon(stands=False), store.all()[0]
    went_on = a_session()
    store.keep(went_on)
    assert late.seen(daemon, session, str) == went_on
    assert daemon.ended == []


def test_what_she_has_ended_meanwhile_is_over(store):
    daemon, session = Daemon(stands=False), store.all()[0]
    store.drop(session.name)
    assert late.seen(daemon, session, str) is None
    assert daemon.ended == []


def test_a_token_that_was_pulled_while_the_daemon_was_silent_counts(store, monkeypatch):
    """Though it is back by the time that the daemon answers."""
    ended, looks = [], iter([Presence.HERE, Presence.GONE])
    answers = threading.Event()

    class Frozen(Daemon):
        def status(self):
            answers.wait()
            return super().status()

    def end(*asked):
        ended.append(asked[2])
        answers.set()

    eye = SimpleNamespace(look=lambda: next(looks, Presence.HERE))
    monkeypatch.setattr(watch, "lookout", lambda *_: eye)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(announce, "announce", lambda _: None)
    monkeypatch.setattr(supervising, "_end", end)
    supervising.work(Frozen(stands=True, silent=0), store.all()[0], ClientConfig(), str)
    assert [why.startswith("Token alice was pulled out") for why in ended] == [True]

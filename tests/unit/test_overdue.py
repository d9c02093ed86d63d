"""What `carnet connect` ends of sessions whose time is over."""

import pytest

from carnet.errors import DaemonSilentError
from tests.unit.test_sessions import a_session
from token_client import closing, overdue, watched
from token_client.overdue import end_what_is_over
from token_client.session_states import State
from token_client.sessions import SessionStore
from token_client.watched import watching

LATER = 4_102_444_800


class Daemon:
    """One that ends tunnels, unless it is silent, and notes which."""

    def __init__(self, *, silent=False):
        self.silent, self.ended = silent, []

    def take_leave(self, _):
        return True

    def down(self, name):
        if self.silent:
            raise DaemonSilentError("The daemon does not answer.")
        self.ended.append(name)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    for module in (overdue, watched):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    made = SessionStore(tmp_path)
    made.keep(a_session(name="over", target="lab"))
    made.keep(a_session(name="lives", expires=LATER))
    made.keep(a_session(State.ENDED, "Its token was pulled out.", name="ended"))
    return made


def test_only_what_is_over_and_was_not_ended_is(store):
    daemon, told = Daemon(), []
    end_what_is_over(daemon, store, told.append)
    assert daemon.ended == ["over"]
    assert told == ["What was left of the session to lab was ended: its time is over."]
    assert "its time is over" in store.find("over").stage.why


def test_what_cannot_be_ended_is_told_and_left(store):
    told = []
    end_what_is_over(Daemon(silent=True), store, told.append)
    (said,) = told
    assert said == (
        "The session to lab, whose time is over, could not be ended whole (The daemon does not"
        " answer); `carnet disconnect lab` tries it again."
    )
    assert not store.find("over").stage.is_ended


@pytest.mark.parametrize("why", [None, "Its token was pulled out."])
def test_what_somebody_has_begun_to_end_and_left_is_ended(store, why):
    """As where that was killed, or failed: it would be in the way of every other Target's."""
    store.drop("over")
    store.keep(a_session(State.TO_END, why, name="left", target="lab", expires=LATER))
    daemon, told = Daemon(), []
    end_what_is_over(daemon, store, told.append)
    assert daemon.ended == ["left"]
    assert told == ["What was left of the session to lab was ended: it was to end."]
    assert why == ((found := store.find("left")) and found.stage.why)


def test_what_is_to_end_is_left_to_the_agent_that_goes_on_with_it(store):
    store.drop("over")
    store.keep(a_session(State.TO_END, name="left", target="lab", expires=LATER))
    daemon, told = Daemon(), []
    with watching("left") as mine:
        assert mine
        end_what_is_over(daemon, store, told.append)
    assert (daemon.ended, told) == ([], [])

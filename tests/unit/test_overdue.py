"""What `carnet connect` ends of sessions whose time is over."""

import pytest

from carnet.errors import DaemonSilentError
from tests.unit.test_sessions import a_session
from token_client import closing
from token_client.overdue import end_what_is_over
from token_client.session_states import State
from token_client.sessions import SessionStore

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

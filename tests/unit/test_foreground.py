"""What becomes of a session with which `carnet connect --foreground` stayed."""

import time
from contextlib import nullcontext

import pytest

from carnet.errors import IPsecError, TokenError
from tests.unit.test_sessions import a_session
from token_client import background, closing, foreground, known
from token_client.config import ClientConfig
from token_client.ending import Ending
from token_client.sessions import SessionStore

PULLED = Ending("Token t was pulled out.", pulled=True)
WITH_DAEMON = Ending("The tunnel to work went down with this machine's own IKE daemon.")
GONE = IPsecError("There is no daemon.")


class Gone:
    """An IPsec daemon that is gone."""

    def refuse(self, *_):
        raise GONE

    down = take_leave = installed = refuse


@pytest.fixture
def started(tmp_path, monkeypatch):
    """For which sessions an agent was started; there is a record of one."""
    found = []
    for module in (known, foreground):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(foreground, "watching", lambda _: nullcontext(True))
    monkeypatch.setattr(foreground, "lookout", lambda *_: None)
    monkeypatch.setattr(foreground, "may_be_kept", lambda *_: None)
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(background, "start", lambda session, _: found.append(session.name))
    return found


def stay(monkeypatch, tmp_path, outcome):
    class Watch:
        def __init__(self, *_):
            pass

        def run(self):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

    monkeypatch.setattr(foreground, "Watch", Watch)
    store, session = SessionStore(tmp_path), a_session(expires=int(time.time()) + 3600)
    store.keep(session)
    foreground.stay(Gone(), session, ClientConfig(), str, lambda: None)


def left(directory):
    return [each.name for each in SessionStore(directory).all()]


@pytest.mark.parametrize("outcome", [WITH_DAEMON, GONE], ids=["it went", "it is not there"])
def test_what_is_left_of_a_session_whose_daemon_is_gone_is_the_agent_s(
    tmp_path, started, monkeypatch, outcome
):
    """Its block stays, and somebody is to lift it when the time is over."""
    with pytest.raises(IPsecError):
        stay(monkeypatch, tmp_path, outcome)
    assert started == left(tmp_path) == ["carnet-00"]


@pytest.mark.parametrize(
    ("outcome", "error"), [(PULLED, TokenError), (KeyboardInterrupt(), KeyboardInterrupt)], ids=str
)
def test_what_is_over_ends_though_the_daemon_is_gone(
    tmp_path, started, monkeypatch, outcome, error
):
    with pytest.raises(error):
        stay(monkeypatch, tmp_path, outcome)
    assert started == left(tmp_path) == []

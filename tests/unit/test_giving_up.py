"""What the background agent does, and says, where it cannot do what it should."""

import errno
import os
import time
from types import SimpleNamespace

import pytest

from carnet.errors import DaemonSilentError, IPsecError
from tests.unit.test_sessions import a_session
from token_client import announce, supervising, watch
from token_client.config import ClientConfig, OnRemoval
from token_client.ending import Ending

PULLED = Ending("Token t was pulled out, so the tunnel to work was ended.", pulled=True)
NOT_NOW = "This machine cannot start nft now."
DAEMON = SimpleNamespace(installed=frozenset)


@pytest.fixture
def said(monkeypatch):
    """What is announced; the session is one that this machine knows of."""
    heard = []
    monkeypatch.setattr(announce, "announce", heard.append)
    monkeypatch.setattr(supervising, "is_known", lambda *_: True)
    return heard


def refuse(*_):
    raise IPsecError(NOT_NOW)


class AtOnce:
    """A watch over a token that was pulled."""

    def __init__(self, *arguments):
        pass

    def run(self):
        return PULLED


def test_a_tunnel_that_cannot_be_ended_is_not_said_to_be(said, monkeypatch):
    monkeypatch.setattr(supervising, "_end", refuse)
    monkeypatch.setattr(watch, "Watch", AtOnce)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    with pytest.raises(IPsecError, match=NOT_NOW):
        supervising.work(None, a_session(), ClientConfig(), said.append)
    assert said == []


UNTOLD = Ending("The tunnel to work went down, and Target does not say why.", untold=True)


class Untold(AtOnce):
    """A watch over a tunnel that went down untold, and over a token that is pulled then."""

    def run(self):
        return UNTOLD

    def until_told(self, _):
        return PULLED


def test_a_token_pulled_while_it_is_asked_on_ends_what_is_left(said, monkeypatch):
    ended = []
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked[-1]))
    monkeypatch.setattr(watch, "Watch", Untold)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(None, a_session(), ClientConfig(), str)
    assert ended == [PULLED.sentence]
    assert said == [UNTOLD.sentence, PULLED.sentence]


@pytest.mark.parametrize("ends", [True, False])
def test_where_no_watcher_can_be_started_the_tunnel_is_ended(said, monkeypatch, ends):
    def no_fork():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ended = []
    monkeypatch.setattr(os, "fork", no_fork)
    monkeypatch.setattr(supervising, "_PAUSE_SECONDS", 0)
    end = (lambda *asked: ended.append(asked)) if ends else refuse
    monkeypatch.setattr(supervising, "_end", end)
    if ends:
        supervising._supervise(lambda: None, DAEMON, a_session(), ClientConfig())
        assert [why for *_, why in ended] == ["What watched over its token failed again and again."]
        assert said == []
    else:
        with pytest.raises(IPsecError):
            supervising._supervise(lambda: None, DAEMON, a_session(), ClientConfig())
        (sentence,) = said
        assert "could not be ended whole" in sentence
        assert NOT_NOW in sentence


def test_a_tunnel_that_is_kept_is_said_to_be_unwatched(said, monkeypatch):
    monkeypatch.setattr(supervising, "_forked", lambda _: 1)
    config = ClientConfig(on_removal=OnRemoval.KEEP)
    supervising._supervise(lambda: None, DAEMON, a_session(), config)
    (sentence,) = said
    assert "`carnet disconnect`" in sentence


class Away:
    """An IPsec daemon that is gone so many `times`, each time for so many looks."""

    def __init__(self, monkeypatch, looks, times=1):
        self.looks, self.times = looks, times
        self.left, self.workers, self.pauses = 0, 0, []
        monkeypatch.setattr(time, "sleep", self.pauses.append)
        monkeypatch.setattr(supervising, "_forked", self.work)

    def work(self, _):
        self.workers += 1
        if self.workers > self.times:
            return 0
        self.left = self.looks
        return IPsecError.exit_status

    def installed(self):
        if self.left:
            self.left -= 1
            raise IPsecError("There is no daemon.")
        return frozenset()


def lasting():
    return a_session(expires=int(time.time()) + 3600)


def test_a_daemon_that_is_away_for_long_is_no_crash_and_is_gone_on_with(said, monkeypatch):
    daemon = Away(monkeypatch, 20)
    supervising._supervise(None, daemon, lasting(), ClientConfig())
    assert daemon.workers == 2
    assert daemon.pauses == sorted(daemon.pauses)
    assert daemon.pauses[0] < daemon.pauses[-1] == supervising._LONGEST_PAUSE_SECONDS
    (sentence,) = said
    assert "IPsec daemon does not answer" in sentence


def test_a_daemon_that_is_soon_back_is_not_spoken_of_however_often(said, monkeypatch):
    daemon = Away(monkeypatch, 3, times=9)
    supervising._supervise(None, daemon, lasting(), ClientConfig())
    assert (daemon.workers, said) == (10, [])


def test_no_daemon_is_waited_for_when_the_session_is_over(said, monkeypatch):
    ended = []
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked))
    daemon = Away(monkeypatch, 1000, times=1000)
    supervising._supervise(None, daemon, a_session(), ClientConfig())
    assert (len(ended), daemon.pauses, said) == (1, [], [])


def test_a_session_that_she_has_ended_waits_for_no_daemon(said, monkeypatch):
    known = [True, False, False]
    monkeypatch.setattr(supervising, "is_known", lambda *_: known.pop(0))
    daemon = Away(monkeypatch, 9)
    supervising._supervise(None, daemon, lasting(), ClientConfig())
    assert (daemon.workers, len(daemon.pauses), said) == (1, 1, [])


@pytest.mark.parametrize("error", [None, DaemonSilentError("It does not answer.")], ids=str)
def test_what_a_worker_cannot_do_at_a_daemon_that_is_there_is_given_up(said, monkeypatch, error):
    looks, ended, pauses = [error] * 30, [], []

    def installed():
        found = looks.pop() if looks else None
        if found is not None:
            raise found
        return frozenset()

    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked))
    monkeypatch.setattr(supervising, "_forked", lambda _: IPsecError.exit_status)
    daemon = SimpleNamespace(installed=installed)
    supervising._supervise(None, daemon, lasting(), ClientConfig())
    assert (len(ended), pauses, said) == (1, [], [])

"""What the background agent does, and says, where it cannot do what it should."""

import errno
import os
import threading
import time
from types import SimpleNamespace

import pytest

from carnet.errors import (
    DaemonSilentError,
    HelperAwayError,
    IPsecError,
    NothingLeftError,
    TunnelLeftError,
)
from tests.unit.test_sessions import a_session
from token_client import (
    announce,
    closing,
    daemonless,
    ending,
    known,
    leaving,
    supervising,
    told_later,
    watch,
    went,
    whole_end,
)
from token_client.config import ClientConfig, OnRemoval
from token_client.ending import Ending
from token_client.session_states import BY_HAND, EndBegun, Released, Stage, State
from token_client.sessions import SessionStore

PULLED = Ending("Token t was pulled out, so the tunnel to work was ended.", pulled=True)
RELEASE = closing.release
NOT_NOW = "This machine cannot start nft now."
DAEMON = SimpleNamespace(installed=frozenset)


@pytest.fixture
def said(monkeypatch):
    """What is announced; the session is one that this machine knows of."""
    heard = []
    monkeypatch.setattr(announce, "announce", heard.append)
    monkeypatch.setattr(supervising, "is_known", lambda *_: True)
    monkeypatch.setattr(went, "memory_directory", lambda: None)
    return heard


def refuse(*_):
    raise IPsecError(NOT_NOW)


class AtOnce:
    """A watch over a token that was pulled."""

    def __init__(self, *arguments):
        pass

    def run(self):
        return PULLED

    until_told = None


def test_a_tunnel_that_cannot_be_ended_is_not_said_to_be(said, monkeypatch):
    monkeypatch.setattr(supervising, "_end", refuse)
    monkeypatch.setattr(watch, "Watch", AtOnce)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    with pytest.raises(IPsecError, match=NOT_NOW):
        supervising.work(DAEMON, a_session(), ClientConfig(), said.append)
    assert said == []


TOLD = Ending("The tunnel to work has ended: Target was started anew.")
UNTOLD = Ending("The tunnel to work went down, and Target does not say why.", untold=True)


class Down(AtOnce):
    """A watch over a tunnel that went down, and over a token that is pulled then."""

    def run(self):
        return self.went

    def until_told(self, ask):
        self.asked.append(ask.func)
        return PULLED


@pytest.mark.parametrize(
    ("why", "asked"), [(UNTOLD, told_later.told_later), (TOLD, told_later.time_over)]
)
def test_a_token_pulled_while_it_is_down_ends_what_is_left(said, monkeypatch, why, asked):
    ended = []
    monkeypatch.setattr(Down, "went", why, raising=False)
    monkeypatch.setattr(Down, "asked", [], raising=False)
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked[2]))
    monkeypatch.setattr(watch, "Watch", Down)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(DAEMON, a_session(), ClientConfig(), str)
    assert ended == [PULLED.sentence]
    assert said == [why.sentence]
    assert Down.asked == [asked]


@pytest.mark.parametrize("stands", [False, True])
@pytest.mark.parametrize(
    "first", [DaemonSilentError("It stands still."), HelperAwayError("It is started anew.")]
)
def test_what_the_kernel_carried_on_goes_once_there_is_a_daemon_again(
    said, store, monkeypatch, stands, first
):
    """Until then its end is announced, for it may carry on; why it went is remembered."""
    daemon, session, asked = Gone(monkeypatch, 7), lasting(), threading.Event()
    goes_on, known_down = threading.Event(), []
    silences = [first, DaemonSilentError("It does not answer."), IPsecError(NOT_NOW)]
    store.keep(session)

    def status():
        goes_on.wait(10)
        daemon.installed()
        if silences:
            raise silences.pop(0)
        asked.set()
        return [SimpleNamespace(name=session.name, established=stands)]

    class OutOfSight(Down):
        went = UNTOLD

        def until_told(self, _, *, is_down):
            known_down.append(is_down())
            goes_on.set()
            for each in threading.enumerate():
                if "take_out" in each.name:
                    each.join(10)
            known_down.append(is_down())

    daemon.status = status
    monkeypatch.setattr(watch, "Watch", OutOfSight)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(daemon, session, ClientConfig(), str)
    assert (asked.is_set(), daemon.ended) == (True, [] if stands else [session.name])
    assert known_down == [False, True]
    assert store.all()[0].stage.state is (State.STANDING if stands else State.UNTOLD)


def test_where_no_watcher_can_be_started_the_tunnel_is_ended(said, monkeypatch):
    def no_fork():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ended = []
    monkeypatch.setattr(os, "fork", no_fork)
    monkeypatch.setattr(supervising, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked[2]))
    supervising._supervise(lambda: None, DAEMON, a_session(), ClientConfig())
    (why,) = ended
    assert "failed again and again" in why


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The records of sessions that are really ended, but for what the kernel has of them."""
    for module in (known, went, whole_end):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(ending, "why_ended", lambda *_, **__: None)
    return SessionStore(tmp_path)


class Gone:
    """An IPsec daemon that is gone until it was looked for so many times."""

    def __init__(self, monkeypatch, looks=0, heard=None):
        self.looks, self.heard, self.pauses, self.ended = looks, heard, [], []
        monkeypatch.setattr(time, "sleep", self.pauses.append)

    def installed(self):
        if self.looks:
            self.looks -= 1
            raise NothingLeftError("There is no daemon.")
        return frozenset()

    def down(self, name):
        self.installed()
        self.ended.append(name)

    def take_leave(self, _):
        self.installed()
        return self.heard


def test_where_the_daemon_is_gone_as_its_time_is_over_a_session_ends_all_the_same(
    said, store, monkeypatch
):
    """And what the daemon left is cleaned up when it is there again."""
    daemon = Gone(monkeypatch, 30)
    session = a_session()
    store.keep(session)
    released = []

    def release(_, name, why):
        released.append((daemon.looks > 0, list(daemon.ended)))
        store.drop(name, why)

    monkeypatch.setattr(closing, "release", release)
    monkeypatch.setattr(supervising, "_forked", lambda _: IPsecError.exit_status)
    supervising._supervise(None, daemon, session, ClientConfig())
    assert released == [(True, [])]
    assert (daemon.looks, daemon.ended) == (0, [session.name])
    assert daemon.pauses == sorted(daemon.pauses)
    (record,), (sentence,) = store.all(), said
    assert record.stage.why == sentence
    assert "its time is over" in sentence


def test_a_token_that_was_pulled_ends_a_session_whose_daemon_is_gone(said, store, monkeypatch):
    daemon, session = Gone(monkeypatch, 30), lasting()
    store.keep(session)
    monkeypatch.setattr(watch, "Watch", AtOnce)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(daemon, session, ClientConfig(), str)
    (record,), (pulled, kept) = store.all(), said
    assert pulled == PULLED.sentence
    assert record.stage.why == f"{pulled} {kept}"
    assert daemon.ended == [session.name]


class Daemonless(AtOnce):
    """A watch that cannot begin while there is no daemon, and need not know that there is none."""

    def __init__(self, daemon, *_):
        self.daemon = daemon

    def run(self):
        try:
            self.daemon.installed()
        except NothingLeftError as error:
            raise IPsecError(error.sentence) from error
        return PULLED


def test_a_token_pulled_before_anybody_watches_ends_a_session_whose_daemon_is_gone(
    said, store, monkeypatch
):
    """Who begins to watch then looks after the token, and ends what the kernel has."""
    daemon, session, asked = Gone(monkeypatch, 30), lasting(), []
    store.keep(session)

    def until_told(_, ask, *, is_down):
        asked.append((ask.func, is_down()))
        return PULLED

    monkeypatch.setattr(Daemonless, "until_told", until_told)
    monkeypatch.setattr(watch, "Watch", Daemonless)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(daemon, session, ClientConfig(), str)
    assert asked == [(daemonless.until_there_is_one, False)]
    (record,), (pulled, _) = store.all(), said
    assert record.stage.why.startswith(PULLED.sentence)
    assert (pulled, daemon.ended) == (PULLED.sentence, [session.name])


def test_who_finds_no_daemon_begins_anew_when_there_is_one(said, store, monkeypatch):
    daemon, session, waited = Gone(monkeypatch, 2, heard=True), lasting(), []
    store.keep(session)
    monkeypatch.setattr(Daemonless, "until_told", lambda *_, **__: waited.append(daemon.looks))
    monkeypatch.setattr(watch, "Watch", Daemonless)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(daemon, session, ClientConfig(), str)
    assert (waited, store.all()[0].stage.why) == ([0], PULLED.sentence)


@pytest.mark.parametrize(
    ("left", "state", "over"),
    [
        (3600, State.STANDING, False),
        (3600, State.TO_END, False),
        (-60, State.STANDING, True),
    ],
    ids=["the daemon is back", "she ends it", "its time is over"],
)
def test_without_a_daemon_its_time_is_looked_after(store, monkeypatch, left, state, over):
    daemon, pauses, said = Gone(monkeypatch, 7 if left > 0 else 10**6), [], []
    session = a_session(state, expires=int(time.time()) + left)
    store.keep(session)
    ending = daemonless.until_there_is_one(daemon, session, said.append, pauses.append)
    assert (ending is not None and ending.over) == over
    assert len(pauses) == (8 if left > 0 and state is State.STANDING else 1)
    assert pauses == sorted(pauses)
    assert len(said) == (1 if len(pauses) > 1 else 0)


def test_nothing_is_released_while_the_tunnel_goes_on_without_its_daemon(said, store, monkeypatch):
    """It is said once that it may, and that it ended when it has."""
    session, times = lasting(), 5
    released = []

    class Left(Gone):
        def down(self, name):
            if self.looks:
                assert not released
                raise TunnelLeftError("There is no daemon, and its tunnel goes on.")
            super().down(name)

    def release(_, name, why):
        released.append(name)
        store.drop(name, why)

    monkeypatch.setattr(closing, "release", release)
    store.keep(session)
    supervising._end(Left(monkeypatch, times), session, PULLED.sentence, said.append)
    not_yet, pulled, _ = said
    assert "until then it may go on" in not_yet
    assert pulled == PULLED.sentence
    assert released == [session.name]


@pytest.mark.parametrize(
    "error", [DaemonSilentError("It lives, without a socket."), IPsecError(NOT_NOW)], ids=str
)
def test_a_daemon_that_fails_is_not_taken_for_none(said, store, monkeypatch, error):
    """What it may have goes on: the block stays until it was asked."""
    session, errors = lasting(), [error] * 3
    daemon = Gone(monkeypatch, heard=True)

    def down(*name):
        if errors:
            assert not store.all()[0].stage.is_ended
            raise errors.pop()
        daemon.ended += name

    daemon.down = daemon.installed = down
    daemon.take_leave = lambda _: True
    store.keep(session)
    supervising._end(daemon, session, PULLED.sentence, said.append)
    assert (daemon.ended, store.all()[0].stage.why) == ([session.name], PULLED.sentence)


def test_who_is_started_anew_after_an_end_only_cleans_up(said, store, monkeypatch):
    daemon, session = Gone(monkeypatch, 3), lasting()
    store.keep(session)
    store.drop(session.name, PULLED.sentence)
    supervising.work(daemon, session, ClientConfig(), str)
    assert (daemon.ended, said) == ([session.name], [])


def test_of_a_tunnel_that_was_ended_by_hand_nothing_is_said_as_it_goes(said, store, monkeypatch):
    session = lasting()
    store.keep(session)

    class ByHand(AtOnce):
        def run(self):
            store.change(session.name, Released(BY_HAND))
            return TOLD

    monkeypatch.setattr(watch, "Watch", ByHand)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(Gone(monkeypatch), session, ClientConfig(), said.append)
    assert said == []


def refused_by_resolved(store, monkeypatch, daemon, session):
    """Have her command end it as far as it comes, name servers and block being left."""
    resolved = ["systemd-resolved does not answer."]

    def release(_, name, why):
        if resolved:
            raise IPsecError(resolved.pop())
        store.drop(name, why)

    monkeypatch.setattr(closing, "release", release)
    with pytest.raises(IPsecError, match="resolved"):
        closing.end_session(daemon, store, session.name)


def test_an_end_that_her_command_could_not_carry_out_is_gone_on_with(said, store, monkeypatch):
    """And nothing else is said of how the tunnel went."""
    daemon, session = Gone(monkeypatch, heard=True), lasting()
    store.keep(session)

    class Ending(AtOnce):
        def run(self):
            refused_by_resolved(store, monkeypatch, daemon, session)
            return UNTOLD

    monkeypatch.setattr(watch, "Watch", Ending)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(daemon, session, ClientConfig(), str)
    assert said == ["The tunnel to work is ended now, as you wanted; nothing is held back for it."]
    assert store.all() == []


def test_so_it_is_where_nobody_watched_then(said, store, monkeypatch):
    """`carnet resume` starts who does, and so does the next `carnet agent`."""
    daemon, session = Gone(monkeypatch, heard=True), lasting()
    store.keep(session)
    refused_by_resolved(store, monkeypatch, daemon, session)
    assert not store.all()[0].lives
    supervising.work(daemon, session, ClientConfig(), str)
    assert (len(said), store.all()) == (1, [])


def test_where_the_daemon_is_gone_an_end_that_was_begun_is_gone_on_with(said, store, monkeypatch):
    """Who watches waits no more for a daemon."""
    daemon, session = Gone(monkeypatch, 10**6), lasting()
    store.keep(session)
    store.change(session.name, EndBegun())
    assert supervising._was_away(daemon, session)
    assert daemon.pauses == []


def test_what_was_told_of_a_tunnel_that_went_is_not_told_another_way(said, store, monkeypatch):
    """By who watches over what is left from then on, and finds nothing in the daemon."""
    session, asked = lasting(), []
    store.keep(session)
    went.keep_down(Gone(monkeypatch), session, UNTOLD)

    class Left(AtOnce):
        def run(self):
            raise AssertionError

        def until_told(self, ask):
            asked.append(ask.func)

    monkeypatch.setattr(watch, "Watch", Left)
    monkeypatch.setattr(watch, "lookout", lambda *_: None)
    supervising.work(Gone(monkeypatch), session, ClientConfig(), str)
    assert (asked, said) == ([told_later.told_later], [])


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_daemon_cannot_bring_back_and_has_keeps_nobody_from_knowing_why(
    said, store, monkeypatch, fails
):
    """A connection without secrets, as of IKEv1, or a file, as of Libreswan."""
    daemon, session = Gone(monkeypatch), lasting()
    daemon.installed = lambda: {session.name}
    if fails:
        daemon.down = refuse
    store.keep(session)
    went.keep_down(daemon, session, TOLD)
    assert daemon.ended == ([] if fails else [session.name])
    left = Stage() if fails else Stage(State.GONE, TOLD.sentence)
    assert store.find(session.name).stage == left


def test_what_cannot_be_ended_now_is_tried_until_it_can(said, store, monkeypatch):
    daemon, session, left = Gone(monkeypatch, heard=True), lasting(), [NOT_NOW] * 9
    store.keep(session)

    def release(_, name, why):
        if left:
            raise IPsecError(left.pop())
        store.drop(name, why)

    monkeypatch.setattr(closing, "release", release)
    supervising._end(daemon, session, PULLED.sentence, said.append)
    assert store.all()[0].stage.why == PULLED.sentence
    assert daemon.pauses == sorted(daemon.pauses)
    not_yet, done = said
    assert NOT_NOW.rstrip(".") in not_yet
    assert done == PULLED.sentence


def test_what_the_agent_tries_again_is_not_said_to_be_left_to_her(said, store, monkeypatch):
    """As where systemd-resolved stands still: to a command of hers it is."""
    session, left = lasting(), [NOT_NOW]

    def restore(_):
        if left:
            raise IPsecError(left.pop())

    monkeypatch.setattr(closing, "release", RELEASE)
    monkeypatch.setattr(closing.name_servers, "restore", restore)
    monkeypatch.setattr(closing.block, "lift", lambda *_: None)
    store.keep(session)
    supervising._end(Gone(monkeypatch, heard=True), session, PULLED.sentence, said.append)
    assert said[0] == (
        f"The tunnel to work is to end, and could not be ended whole; it is tried again: {NOT_NOW}"
    )


def test_what_target_may_keep_of_a_session_that_ends_unseen_is_said(said, store, monkeypatch):
    """At once, by `carnet status`, and when she clears its record away."""
    daemon, session = Gone(monkeypatch, heard=False), lasting()
    store.keep(session)
    supervising._end(daemon, session, PULLED.sentence, said.append)
    (record,), (pulled, kept) = store.all(), said
    assert pulled == PULLED.sentence
    assert "Target work has not confirmed" in kept
    assert record.stage.why == f"{pulled} {kept}"
    assert leaving.may_be_kept(record, heard=None) == kept


def test_a_tunnel_that_is_kept_is_said_to_be_unwatched_and_ends_in_its_time(said, monkeypatch):
    ended = []
    monkeypatch.setattr(supervising, "_forked", lambda _: 1)
    monkeypatch.setattr(supervising, "_end", lambda *asked: ended.append(asked[2]))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    config = ClientConfig(on_removal=OnRemoval.KEEP)
    supervising._supervise(lambda: None, DAEMON, a_session(), config)
    (sentence,) = said
    assert "`carnet disconnect`" in sentence
    assert ["its time is over" in why for why in ended] == [True]


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
            raise NothingLeftError("There is no daemon.")
        return frozenset()


def lasting(**changes):
    return a_session(expires=int(time.time()) + 3600, **changes)


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

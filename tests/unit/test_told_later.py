"""Asking on why a tunnel went down, until somebody says so or nobody wants to know."""

import pytest

from carnet.ipsec import block
from tests.unit.test_sessions import a_session
from token_client import known, told_later
from token_client.ending import Ending
from token_client.sessions import SessionStore

LATER = 4_102_444_800
SAID = Ending("Target's operator ended it.", over=True)


class Waiting:
    """Time that passes as it is slept, and a Host that has an answer after so many questions."""

    def __init__(self, monkeypatch, directory, silent):
        self.now, self.asked, self.silent = 0.0, [], silent
        self.store = SessionStore(directory)
        monkeypatch.setattr(known, "memory_directory", lambda: directory)
        monkeypatch.setattr(told_later.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(told_later.time, "time", lambda: LATER - 100 + self.now)
        monkeypatch.setattr(told_later, "why_ended", self.ask)

    def sleep(self, seconds):
        self.now += seconds

    def ask(self, session, wanted, *, once):
        assert wanted()
        assert once
        self.asked.append(self.now)
        return SAID if len(self.asked) > self.silent else None


@pytest.fixture
def waiting(monkeypatch, tmp_path):
    return Waiting(monkeypatch, tmp_path, silent=5)


def test_what_is_said_late_is_heard(waiting):
    session = a_session(expires=2 * LATER)
    waiting.store.keep(session)
    assert told_later.told_later(session, waiting.sleep) == SAID
    assert waiting.asked == [2, 6, 14, 30, 60, 90]


def test_with_her_time_it_is_over(waiting):
    session = a_session(expires=LATER)
    waiting.store.keep(session)
    waiting.silent = 1000
    over = told_later.told_later(session, waiting.sleep)
    assert over.over
    assert "its time is over" in over.sentence
    assert 104 < waiting.now < 107


def test_nobody_asks_for_who_has_ended_it_herself(waiting):
    session = a_session(expires=2 * LATER)
    waiting.store.keep(session)

    def sleep(seconds):
        waiting.sleep(seconds)
        if waiting.now > 20:
            waiting.store.drop(session.name)

    assert told_later.told_later(session, sleep) is None
    assert waiting.asked == [2, 6, 14]


@pytest.mark.parametrize("ended", [True, False], ids=["she ended it", "its time is over"])
def test_what_is_known_to_have_gone_is_waited_for_until_its_session_ends(waiting, ended):
    session = a_session(expires=LATER)
    waiting.store.keep(session)

    def sleep(seconds):
        waiting.sleep(seconds)
        if ended and waiting.now > 20:
            waiting.store.drop(session.name)

    over = told_later.time_over(session, sleep)
    assert (over is None) == ended
    assert (waiting.now < 23) == ended
    assert waiting.asked == []


class Packets:
    """The packet filter, in which the session's block is."""

    name = "packets"

    def __init__(self, name):
        self.blocks = {name}

    def works(self):
        return True

    def names(self):
        return frozenset(self.blocks)


@pytest.mark.parametrize("wait", [told_later.told_later, told_later.time_over])
@pytest.mark.parametrize("ended", [True, False], ids=["she ended it", "its time is over"])
def test_a_session_whose_record_was_damaged_is_known_by_its_block(
    waiting, monkeypatch, wait, ended
):
    session, waiting.silent = a_session(expires=LATER, block="packets"), 1000
    packets = Packets(session.name)
    monkeypatch.setattr(block, "_here", block._PacketFilters((packets,)))

    def sleep(seconds):
        waiting.sleep(seconds)
        if ended and waiting.now > 20:
            packets.blocks.clear()

    over = wait(session, sleep)
    assert (over is None) == ended
    assert (waiting.now < 23) == ended
    assert over is None or (over.over and over.meant)

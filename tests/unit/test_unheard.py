"""An end that this end did not hear of: when Host is asked, and what follows from its answer."""

import threading
from itertools import pairwise
from types import SimpleNamespace

import pytest

from tests.unit.test_watch import LIVE, SESSION, Always, FakeDriver
from token_client import tunnel_watch, unheard
from token_client.config import ClientConfig
from token_client.ending import Ending
from token_client.unheard import (
    LONGEST_SILENT_SECONDS,
    QUIET_SECONDS,
    SILENT_SECONDS,
    Silence,
)
from token_client.watch import Watch

ENDED = Ending("Target's operator ended it.", over=True)


def live(came, went, *, unanswered=False, established=True):
    facts = {"bytes_in": came, "bytes_out": went}
    facts |= {"unanswered": unanswered, "established": established}
    return SimpleNamespace(**facts)


def asked(*looks):
    """Return when it was time to ask, of looks that are one second apart."""
    silence = Silence()
    return [now for now, look in enumerate(looks) if silence.is_suspect(look, now)]


LONG = 200
HEARD = {
    "nothing is sent": lambda _: live(7, 7),
    "all is answered": lambda each: live(each, each),
    "only received": lambda each: live(each, 7),
    "down, and seen to": lambda each: live(7, each, established=False),
    "gone": lambda _: None,
    "answered in time": lambda each: live(each // 4, each, unanswered=True),
}


@pytest.mark.parametrize("look", HEARD.values(), ids=HEARD)
def test_what_is_not_silent_is_not_asked_for(look):
    assert asked(*map(look, range(LONG))) == []


@pytest.mark.parametrize(
    "look",
    [lambda each: live(7, 7 + each), lambda _: live(7, 7, unanswered=True)],
    ids=["packets", "IKE"],
)
def test_what_gets_no_answer_is_asked_for_soon_and_then_seldom(look):
    times = asked(*map(look, range(LONG)))
    gaps = [after - before for before, after in pairwise(times)]
    assert times[0] <= SILENT_SECONDS + 1
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST_SILENT_SECONDS


def test_while_nothing_is_on_its_way_it_is_looked_ever_more_seldom():
    silence, pauses = Silence(), []
    quiet, sent, received = live(7, 7), live(7, 8), live(8, 8)
    unanswered = live(8, 8, unanswered=True)
    for now, look in enumerate([quiet] * 4 + [sent, received, received, unanswered]):
        silence.is_suspect(look, now)
        pauses.append(silence.pause)
    assert pauses == [2, 4, QUIET_SECONDS, QUIET_SECONDS, 2, 2, 4, 2]


class Silent(FakeDriver):
    """Whatever it sends, nothing comes, and its daemon tells of nothing."""

    def watch(self):
        self.ends.wait()
        yield from ()

    def status(self):
        facts = vars(LIVE) | {"bytes_out": self.live.bytes_out + 1}
        self.live = SimpleNamespace(**facts)
        return super().status()


@pytest.fixture
def _soon(monkeypatch):
    monkeypatch.setattr(unheard, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(unheard, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(unheard, "LONGEST_SILENT_SECONDS", 0.001)


@pytest.mark.usefixtures("_soon")
def test_a_silent_tunnel_goes_as_soon_as_target_says_that_it_has_ended(monkeypatch):
    driver, answers, times = Silent(), iter([None, None]), []

    def why_ended(_, wanted, *, once):
        times.append((wanted(), once))
        return next(answers, ENDED)

    monkeypatch.setattr(tunnel_watch, "why_ended", why_ended)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert (ending.sentence, ending.over) == (ENDED.sentence, True)
    assert times == [(True, True)] * 3
    assert not driver.stands


@pytest.mark.usefixtures("_soon")
def test_one_that_target_says_lives_stays(monkeypatch):
    driver, often = Silent(), threading.Event()
    times = []

    def why_ended(*_, **__):
        times.append(driver.stands)
        if len(times) == 5:
            often.set()
            driver.ends.set()  # the daemon goes

    monkeypatch.setattr(tunnel_watch, "why_ended", why_ended)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert often.is_set()
    assert all(times[:5])
    assert ending.untold

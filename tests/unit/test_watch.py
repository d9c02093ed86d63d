"""The loop that watches over tunnel and token, with looks and tunnel events as scripted."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY

import pytest
from msgspec.structs import replace

from carnet.errors import (
    DaemonGoneError,
    DaemonSilentError,
    HelperAwayError,
    IKERefusedError,
    IKESilentError,
    IKEUnprovenError,
    IPsecError,
)
from carnet.ipsec import patience
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.token.presence import Presence
from lab.waiting import wait_until
from token_client import (
    announce,
    closing,
    coming_back,
    known,
    supervising,
    tunnel_watch,
    watch,
    whole_end,
)
from token_client.coming_back import ComingBack
from token_client.config import ClientConfig, OnRemoval
from token_client.ending import Ending
from token_client.record import Session
from token_client.session_states import EndBegun
from token_client.sessions import SessionStore
from token_client.uptime import boot_id, uptime
from token_client.watch import Watch, lookout

SESSION = Session(
    name="carnet-1",
    target="work",
    user_id="alice@office",
    objective_id=3,
    networks=("10.20.0.0/16",),
    virtual_address="10.99.0.2",
    ppk=True,
    target_addresses=("198.51.100.2",),
    established_at=0,
    expires=int(time.time()) + 3600,
    token_label="alice",
    token_serial="1",
)
LIVE = SimpleNamespace(
    name="carnet-1",
    established=True,
    ppk=True,
    virtual_address="10.99.0.2",
    local_address="127.0.0.1",
    remote_address="198.51.100.2",
    other_peers=(),
    local_selectors=("10.99.0.2/32",),
    remote_selectors=("10.20.0.0/16",),
    bytes_in=0,
    bytes_out=0,
    unanswered=False,
)
"""As it was agreed."""
HERE, GONE, UNSEEN = Presence.HERE, Presence.GONE, Presence.UNSEEN


class FakeDriver:
    """A daemon whose one tunnel goes down when the test says so."""

    def __init__(self, *, stands: bool = True) -> None:
        self.live = LIVE
        self.stands = stands
        self.loaded = {"carnet-1"} if stands else set()
        self.ends = threading.Event()
        self.closed = False

    def watch(self):
        yield TunnelEvent("carnet-2", Change.DOWN)
        yield TunnelEvent("carnet-1", Change.UP)
        self.ends.wait()
        if not self.closed:
            self.stands = False
            yield TunnelEvent("carnet-1", Change.DOWN)

    def status(self):
        return [self.live] if self.stands else []

    def resumable(self):
        return frozenset(self.loaded)

    def down(self, name):
        self.stands = False
        self.loaded.discard(name)

    def installed(self):
        return frozenset()

    def remembered(self):
        return self.installed()

    def resume(self, name):
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True
        self.ends.set()


class Script:
    """What one look after the other finds; when there is no more the tunnel goes down."""

    def __init__(self, driver: FakeDriver, *found: Presence) -> None:
        self.driver = driver
        self.found = list(found)
        self.looks = 0

    def look(self) -> Presence:
        self.looks += 1
        if len(self.found) > 1:
            return self.found.pop(0)
        self.driver.ends.set()
        return self.found[0]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(coming_back, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(coming_back, "LONGEST_PAUSE_SECONDS", 0.002)


def run(*found: Presence, on_removal: OnRemoval = OnRemoval.END):
    driver = FakeDriver()
    told: list[str] = []
    config = ClientConfig(on_removal=on_removal)
    ending = Watch(driver, SESSION, Script(driver, *found), config, told.append).run()
    assert driver.closed
    return ending, told


def test_a_tunnel_that_goes_down_is_not_a_token_that_was_pulled():
    ending, told = run(HERE)
    assert not ending.pulled
    assert "went down" in ending.sentence
    assert told == []


OURS = "with this machine's own IKE daemon"


class Leaving(FakeDriver):
    """Its tunnel ends, or its daemon goes, which knows of the tunnel as long as it is there."""

    def __init__(self, *, goes=False, knows=True) -> None:
        super().__init__()
        self.goes, self.knows = goes, knows

    def watch(self):
        self.ends.wait()
        self.stands = False
        if not self.goes:
            yield TunnelEvent("carnet-1", Change.DOWN)

    def installed(self):
        """Tell also of what is there though the daemon does not know it, as a file is."""
        if isinstance(self.knows, Exception):
            raise self.knows
        return frozenset({"carnet-1"})

    def remembered(self):
        return self.installed() if self.knows else frozenset()


AWAY = HelperAwayError("carnet-helper does not answer.")
DAEMON_SILENT = DaemonSilentError("The daemon does not answer.")
FAILS = IPsecError("It fails.")
DAEMON_GONE = DaemonGoneError("There is no daemon.")
LOST_SIGHT = Ending("Target lost sight of this machine.")
REVOKED = Ending("Its key pair was revoked.", over=True)


@pytest.mark.parametrize("signed", [None, LOST_SIGHT, REVOKED], ids=["untold", "lost", "revoked"])
@pytest.mark.parametrize(
    ("daemon", "ours"),
    [
        ({}, False),
        ({"goes": True}, True),
        ({"knows": False}, True),
        ({"knows": FAILS}, True),
        ({"knows": DAEMON_GONE}, True),
        ({"goes": True, "knows": DAEMON_GONE}, True),
        ({"knows": DAEMON_SILENT}, False),
        ({"knows": AWAY}, False),
    ],
    ids=[
        *("Target ended it", "goes", "started anew", "fails", "gone", "goes and is gone"),
        *("silent", "helper away"),
    ],
)
def test_whose_daemon_it_was_is_said(monkeypatch, tmp_path, daemon, ours, signed):
    """What Target makes of a daemon here that is gone is no reason; that it is over, is one."""
    monkeypatch.setattr(tunnel_watch, "why_ended", lambda *_: signed)
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    SessionStore(tmp_path).keep(SESSION)
    driver = Leaving(**daemon)
    ending = Watch(driver, SESSION, Script(driver, HERE), ClientConfig(), str).run()
    said = REVOKED.sentence if signed is REVOKED else None
    if signed is LOST_SIGHT and not ours:
        said = LOST_SIGHT.sentence
    assert (OURS in ending.sentence) == (ours and said is None)
    gone = daemon.get("knows") is DAEMON_GONE and said is None
    assert ("the kernel may carry it on" in ending.sentence) == gone
    assert said in (None, ending.sentence)
    assert ending.untold == (signed is None)


@pytest.mark.parametrize(
    ("daemon", "taken_out"),
    [
        ({"goes": True}, True),
        ({"goes": True, "knows": False}, True),
        ({"knows": False}, True),
        ({"goes": True, "knows": DAEMON_GONE}, False),
        ({"knows": True}, False),
    ],
    ids=["its file is left", "goes", "started anew", "still gone", "Target ended it"],
)
def test_what_the_kernel_has_of_a_tunnel_goes_where_a_new_daemon_has_none(
    monkeypatch, tmp_path, daemon, taken_out
):
    """While there is none the kernel may carry it on."""
    monkeypatch.setattr(tunnel_watch, "why_ended", lambda *_: None)
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    SessionStore(tmp_path).keep(SESSION)
    driver, ended = Leaving(**daemon), []
    driver.loaded, driver.down = set(), ended.append
    ending = Watch(driver, SESSION, Script(driver, HERE), ClientConfig(), str).run()
    assert ended == ([SESSION.name] if taken_out else [])
    assert ending.left == (daemon.get("knows") is DAEMON_GONE)


@pytest.mark.parametrize("away", [AWAY, DAEMON_SILENT, FAILS], ids=["helper", "daemon", "fails"])
def test_what_nobody_takes_out_of_the_kernel_now_is_left(monkeypatch, tmp_path, away):
    monkeypatch.setattr(tunnel_watch, "why_ended", lambda *_: None)
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    SessionStore(tmp_path).keep(SESSION)
    driver = Leaving(goes=True)

    def down(_):
        raise away

    driver.loaded, driver.down = set(), down
    assert Watch(driver, SESSION, Script(driver, HERE), ClientConfig(), str).run().left


def test_what_she_has_ended_herself_is_not_said_to_be_the_daemon_s_doing(monkeypatch, tmp_path):
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    store, driver = SessionStore(tmp_path), Leaving(knows=False)
    store.keep(SESSION)
    monkeypatch.setattr(tunnel_watch, "why_ended", lambda *_: store.drop(SESSION.name))
    ending = Watch(driver, SESSION, Script(driver, HERE), ClientConfig(), str).run()
    assert OURS not in ending.sentence
    assert not ending.meant


def test_an_end_that_her_command_has_begun_is_seen_while_the_daemon_tells_nothing(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    store, driver = SessionStore(tmp_path), FakeDriver()
    store.keep(SESSION)
    store.change(SESSION.name, EndBegun())
    looks = SimpleNamespace(look=lambda: HERE)
    ending = Watch(driver, SESSION, looks, ClientConfig(), str).run()
    assert ending.sentence == "The tunnel to work was ended by another command."
    assert not ending.meant


def test_the_daemon_keeps_nothing_of_a_tunnel_that_went_down():
    """It could negotiate anew by itself, and nobody would look."""
    driver = FakeDriver()
    Watch(driver, SESSION, Script(driver, HERE), ClientConfig(), str).run()
    assert driver.loaded == set()


class ScriptedDriver(FakeDriver):
    """Things happen to its tunnel, by which another may stand; then the daemon goes."""

    def __init__(self, *changes: Change, **differs) -> None:
        super().__init__()
        self.changes = changes
        self.after = SimpleNamespace(**vars(LIVE) | differs)

    def watch(self):
        return iter([TunnelEvent("carnet-1", self._happens(change)) for change in self.changes])

    def _happens(self, change: Change) -> Change:
        self.live = self.after
        return change


OTHERS = {
    "address": {"virtual_address": "10.99.0.2, 203.0.113.2"},
    "post-quantum key": {"ppk": False},
    "peer": {"remote_address": "203.0.113.2"},
    "address, and no more yet": {"virtual_address": "203.0.113.2", "established": False},
    "network, a part of what was agreed": {"remote_selectors": ("10.20.0.0/29",)},
    "port alone": {"local_selectors": ("10.99.0.2/32[udp/53]",)},
}


@pytest.mark.parametrize("change", [Change.UP, Change.ANEW, Change.DOWN])
@pytest.mark.parametrize("differs", OTHERS.values(), ids=OTHERS)
def test_what_comes_up_as_another_is_ended(change, differs):
    driver = ScriptedDriver(change, **differs)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert driver.loaded == set()
    goes = change is Change.DOWN and not driver.after.established
    assert ("went down" if goes else "another than was agreed") in ending.sentence


def test_what_the_helper_ended_as_another_is_said_to_be():
    driver = ScriptedDriver(Change.ANOTHER)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert "another than was agreed" in ending.sentence


NOT_ANOTHER = {
    "the same": {},
    "not whole yet": {"virtual_address": None, "established": False},
    "more than was agreed": {"remote_selectors": ("10.30.0.0/16", "10.20.0.0/16")},
    "networks untold": {"local_selectors": None, "remote_selectors": None},
}


@pytest.mark.parametrize("differs", NOT_ANOTHER.values(), ids=NOT_ANOTHER)
def test_what_comes_up_as_agreed_stays(differs):
    driver = ScriptedDriver(Change.ANEW, Change.UP, **differs)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert "went down" in ending.sentence  # as the daemon went


class EndedDriver(FakeDriver):
    """Its tunnel is ended as soon as it was looked at."""

    def __init__(self):
        super().__init__()
        self.seen = threading.Event()

    def watch(self):
        self.seen.wait()
        self.stands = False
        yield TunnelEvent("carnet-1", Change.DOWN)
        self.ends.wait()

    def status(self):
        stands = super().status()
        self.seen.set()
        return stands


def test_what_her_own_command_is_ending_is_left_to_it(monkeypatch, tmp_path):
    """It takes leave of Target by what the daemon has of the tunnel."""
    monkeypatch.setattr(tunnel_watch, "memory_directory", lambda: tmp_path)
    store, driver, waits = SessionStore(tmp_path), EndedDriver(), threading.Event()
    wait_for_leave = SessionStore.wait_for_leave

    def wait(*given):
        waits.set()
        wait_for_leave(*given)

    monkeypatch.setattr(SessionStore, "wait_for_leave", wait)
    watch_it = Watch(driver, SESSION, Script(driver, HERE), ClientConfig(), str).run
    watching = threading.Thread(target=watch_it)
    with store.leaving("carnet-1"):
        watching.start()
        assert waits.wait(10)
        assert driver.loaded == {"carnet-1"}
    watching.join()
    assert driver.loaded == set()


class KeepingDriver(EndedDriver):
    """It has the tunnel until it is told to forget it."""

    def installed(self):
        return frozenset(self.loaded)


def test_an_end_that_overtakes_what_host_says_tells_that_the_session_was_meant(monkeypatch):
    asked, enough = threading.Event(), threading.Event()

    def ask(*_):
        asked.set()
        enough.wait()

    monkeypatch.setattr(tunnel_watch, "why_ended", ask)
    pulled = SimpleNamespace(look=lambda: GONE if asked.is_set() else HERE)
    ending = Watch(KeepingDriver(), SESSION, pulled, ClientConfig(), str).run()
    enough.set()
    assert ending.pulled
    assert ending.meant


class TwiceDriver(FakeDriver):
    """One of two IKE_SAs goes; it counts how often it was asked what stands."""

    asked = 0

    def watch(self):
        yield TunnelEvent("carnet-1", Change.DOWN)
        self.ends.wait()

    def status(self):
        self.asked += 1
        return super().status()


def test_the_end_of_one_ike_sa_of_two_is_not_the_end():
    driver = TwiceDriver()
    pulled = SimpleNamespace(look=lambda: GONE if driver.asked > 1 else HERE)
    assert Watch(driver, SESSION, pulled, ClientConfig(), str).run().pulled


class AgainDriver(FakeDriver):
    """What went down comes up again by itself, before the Host has said why."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = set()
        self.seen = [[LIVE], [], [LIVE]]
        """Each time that it is looked at."""

    def watch(self):
        yield TunnelEvent("carnet-1", Change.DOWN)
        self.ends.wait()

    def status(self):
        return self.seen.pop(0) if self.seen else [LIVE]


def test_what_went_down_and_stands_again_is_watched_as_before():
    driver = AgainDriver()
    pulled = SimpleNamespace(look=lambda: HERE if driver.seen else GONE)
    assert Watch(driver, SESSION, pulled, ClientConfig(), str).run().pulled


def test_a_tunnel_that_was_down_before_it_was_watched():
    driver = FakeDriver(stands=False)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert "went down" in ending.sentence


class SilentDriver(FakeDriver):
    """The peer is lost at once; what each try to resume raises, or None, is scripted."""

    def __init__(self, *outcomes: Exception | None) -> None:
        super().__init__()
        self.outcomes = list(outcomes)

    def watch(self):
        yield TunnelEvent("carnet-1", Change.LOST)
        self.ends.wait()

    def resume(self, name):
        outcome = self.outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return self.live


class Always:
    """The token is here."""

    def look(self) -> Presence:
        return HERE


SILENT = IKESilentError("Nobody there.")


def resuming(driver, *, resume=True):
    told: list[str] = []

    def tell(sentence):
        told.append(sentence)
        if "is back" in sentence:
            driver.ends.set()  # and it goes down

    ending = Watch(driver, SESSION, Always(), ClientConfig(resume=resume), tell).run()
    return ending, told


def test_a_tunnel_that_was_lost_is_resumed_until_target_answers():
    driver = SilentDriver(SILENT, SILENT, None)
    ending, told = resuming(driver)
    assert driver.outcomes == []
    assert told == [
        "Target work is silent; the tunnel comes back with it.",
        "The tunnel to work is back.",
    ]
    assert "went down" in ending.sentence  # as the daemon went, at the end of the script


def test_a_tunnel_that_target_does_not_take_back_is_over():
    ending, told = resuming(SilentDriver(SILENT, IKERefusedError("No."), None))
    assert (ending.sentence, ending.pulled, len(told)) == ("No.", False, 1)


UNPROVEN = IKEUnprovenError("Somebody says no.")


def test_a_no_that_anybody_can_say_does_not_end_the_trying():
    driver = SilentDriver(SILENT, UNPROVEN, SILENT, UNPROVEN, None)
    assert resuming(driver)[1] == [
        "Target work is silent; the tunnel comes back with it.",
        "Target work says no, and does not prove to be it; the tunnel comes back with it.",
        "The tunnel to work is back.",
    ]


def test_a_no_that_target_has_signed_is_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tunnel_watch, "why_ended", lambda *_: Ending("work says why."))
    driver = SilentDriver(SILENT, UNPROVEN, None)
    ending, told = resuming(driver)
    assert (ending.sentence, len(told), driver.outcomes) == ("work says why.", 2, [None])
    assert driver.loaded == set()


def test_what_is_no_refusal_does_not_end_the_trying():
    """It may be where she is: the same reason is told once."""
    here = IPsecError("carnet-helper does not take 10.99.0.2; use another network.")
    assert resuming(SilentDriver(here, here, SILENT, None))[1] == [
        f"The tunnel to work does not come back yet: {here.sentence}",
        "Target work is silent; the tunnel comes back with it.",
        "The tunnel to work is back.",
    ]


def test_tries_to_come_back_are_made_ever_more_seldom(monkeypatch: pytest.MonkeyPatch):
    driver, pauses = SilentDriver(*[SILENT] * 5), []
    monkeypatch.setattr(coming_back, "LONGEST_PAUSE_SECONDS", 0.005)
    enough = SimpleNamespace(wait=lambda pause: pauses.append(pause) or not driver.outcomes)
    assert ComingBack(driver, SESSION, str, str, enough).run() is None
    assert pauses == [0.001, 0.002, 0.004, 0.005, 0.005]


class Held:
    """Something that takes as long as its caller, once the token was pulled meanwhile."""

    def __init__(self) -> None:
        self.began, self.over = threading.Event(), threading.Event()
        self.goes_on = False

    def __call__(self, *_):
        self.goes_on = True
        self.began.set()
        self.over.wait(20)
        self.goes_on = False

    def look(self) -> Presence:
        return GONE if self.began.is_set() else HERE


@pytest.fixture
def held():
    made = Held()
    yield made
    made.over.set()


def test_a_pulled_token_is_noticed_while_a_try_to_come_back_goes_on(held):
    driver = SilentDriver()
    driver.resume = held
    assert Watch(driver, SESSION, held, ClientConfig(), str).run().pulled
    assert held.goes_on


@pytest.mark.parametrize(
    ("on_removal", "said"),
    [
        (OnRemoval.KEEP, "Token alice was pulled out; {}, as configured."),
        (OnRemoval.LOCK, "Token alice was pulled out; screen locked, {}."),
    ],
)
def test_of_a_tunnel_that_is_brought_back_the_session_stays(monkeypatch, on_removal, said):
    """It is down while that is tried, and is not any more once it is back."""
    monkeypatch.setattr(watch, "lock_screen", lambda _: None)
    driver, told, now, pulled = SilentDriver(), [], [HERE], threading.Event()

    def resume(_):
        now[0] = GONE
        assert pulled.wait(20)
        return driver.live

    def tell(sentence):
        if sentence == "Token alice is back.":
            wait_until(lambda: not watch_it._is_down(), "the tunnel to be back")
            now[0] = GONE
        elif sentence.startswith("Token"):
            told.append(sentence)
            now[0] = HERE if len(told) == 1 else GONE
            (driver.ends if pulled.is_set() else pulled).set()

    driver.resume = resume
    token = SimpleNamespace(look=lambda: now[0])
    watch_it = Watch(driver, SESSION, token, ClientConfig(on_removal=on_removal), tell)
    watch_it.run()
    down, up = "the tunnel to work is down, its session stays", "the tunnel to work stays"
    assert told == [said.format(down), said.format(up)]


@pytest.mark.parametrize("outcomes", [[UNPROVEN], []], ids=["refused", "down"])
def test_a_pulled_token_is_noticed_while_a_silent_host_is_asked(held, monkeypatch, outcomes):
    monkeypatch.setattr(tunnel_watch, "why_ended", held)
    driver = SilentDriver(*outcomes, SILENT) if outcomes else FakeDriver(stands=False)
    assert Watch(driver, SESSION, held, ClientConfig(), str).run().pulled
    assert held.goes_on


def test_a_pulled_token_is_noticed_while_it_is_asked_on_why_the_tunnel_went(held):
    watch_it = Watch(FakeDriver(), SESSION, held, ClientConfig(), str)
    assert watch_it.until_told(held).pulled
    assert held.goes_on


def test_a_pulled_token_that_may_be_keeps_nobody_from_asking_on(held):
    told, config = [], ClientConfig(on_removal=OnRemoval.KEEP)

    def tell(sentence):
        told.append(sentence)
        held.over.set()

    assert Watch(FakeDriver(), SESSION, held, config, tell).until_told(held) is None
    stays = "the tunnel to work is down, its session stays, as configured."
    assert told == [f"Token alice was pulled out; {stays}"]


def test_what_is_told_while_the_token_is_looked_after_is_heard():
    said = Ending("Target's operator ended it.", over=True)
    watch_it = Watch(FakeDriver(), SESSION, Always(), ClientConfig(), str)
    assert watch_it.until_told(lambda: said) is said
    with pytest.raises(ZeroDivisionError):
        watch_it.until_told(lambda: 1 / 0)


def test_what_comes_up_as_another_is_ended_while_a_try_to_come_back_goes_on(held):
    """As a Target may do that assigns an address, and then does not rekey for long."""
    driver = SilentDriver()
    driver.resume = held

    def watch_it():
        yield TunnelEvent("carnet-1", Change.LOST)
        held.began.wait()
        driver.live = SimpleNamespace(**vars(LIVE) | OTHERS["address, and no more yet"])
        yield TunnelEvent("carnet-1", Change.ANEW)
        driver.ends.wait()

    driver.watch = watch_it
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert "another than was agreed" in ending.sentence
    assert (driver.loaded, held.goes_on) == (set(), True)


def test_what_nobody_expects_is_raised_where_it_is_heard_of():
    """The agent is started again then."""
    driver = SilentDriver(ZeroDivisionError(), SILENT)
    with pytest.raises(ZeroDivisionError):
        Watch(driver, SESSION, Always(), ClientConfig(), str).run()


def test_what_nobody_expects_of_the_daemon_s_news_is_raised_there_too():
    """Nothing would be heard of the tunnel any more."""
    driver, until = FakeDriver(), time.monotonic() + 20

    def watch_it():
        yield TunnelEvent("carnet-2", Change.DOWN)
        raise ZeroDivisionError

    driver.watch = watch_it
    waiting = SimpleNamespace(look=lambda: HERE if time.monotonic() < until else GONE)
    with pytest.raises(ZeroDivisionError):
        Watch(driver, SESSION, waiting, ClientConfig(), str).run()


def test_where_it_is_not_to_come_back_nothing_is_tried():
    driver = SilentDriver(None)
    ending, _ = resuming(driver, resume=False)
    assert "went down" in ending.sentence
    assert driver.outcomes == [None]


class HelpedDriver(FakeDriver):
    """The helper goes at once; what each call of it raises until it is back is scripted."""

    def __init__(self, *outcomes: Exception, stands: bool) -> None:
        super().__init__(stands=True)
        self.outcomes = list(outcomes)
        self.after = stands
        self.gone = self.back = False

    def watch(self):
        if self.gone:
            if self.outcomes:
                raise self.outcomes.pop(0)
            self.stands, self.back = self.after, True
            if not self.stands:
                self.loaded.clear()
        return self.events()

    def events(self):
        if not self.gone:
            self.gone = True
            raise AWAY
        self.ends.wait()
        yield TunnelEvent("carnet-2", Change.DOWN)


@pytest.fixture
def soon_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for waited in (patience, whole_end):
        monkeypatch.setattr(waited, "_FIRST_SECONDS", 0)


class PulledOnceBack:
    """The token is here, until the helper is there again."""

    def __init__(self, driver: HelpedDriver) -> None:
        self.driver = driver

    def look(self) -> Presence:
        return GONE if self.driver.back else HERE


@pytest.mark.usefixtures("soon_back")
def test_a_helper_that_goes_and_comes_back_ends_no_watch():
    driver, told = HelpedDriver(AWAY, AWAY, stands=True), []
    script = PulledOnceBack(driver)
    ending = Watch(driver, SESSION, script, ClientConfig(), told.append).run()
    assert (ending.pulled, told) == (True, [])


@pytest.mark.usefixtures("soon_back")
@pytest.mark.parametrize(
    ("outcome", "stands"), [(AWAY, False), (IPsecError("The daemon is gone."), True)], ids=str
)
def test_what_went_while_the_helper_was_away_is_found_out(outcome, stands):
    driver = HelpedDriver(outcome, stands=stands)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert "went down" in ending.sentence


class StalledDriver(FakeDriver):
    """Helper or daemon stand still as something goes down, and tell of events as ever."""

    def __init__(self, away: Exception, *, stands: bool) -> None:
        super().__init__()
        self.looks = [[LIVE], *[away] * 3]
        self.after = [LIVE] if stands else []

    @property
    def back(self) -> bool:
        return not self.looks

    def watch(self):
        yield TunnelEvent("carnet-1", Change.DOWN)
        self.ends.wait()

    def status(self):
        look = self.looks.pop(0) if self.looks else self.after
        if isinstance(look, Exception):
            raise look
        if not look:
            self.loaded.clear()
        return look


@pytest.mark.usefixtures("soon_back")
@pytest.mark.parametrize("away", [AWAY, DAEMON_SILENT], ids=["helper", "daemon"])
def test_an_end_told_while_nobody_answers_is_found_out(away):
    driver = StalledDriver(away, stands=False)
    ending = Watch(driver, SESSION, Always(), ClientConfig(), str).run()
    assert "went down" in ending.sentence


@pytest.mark.usefixtures("soon_back")
@pytest.mark.parametrize("away", [AWAY, DAEMON_SILENT], ids=["helper", "daemon"])
def test_what_stands_while_nobody_answers_is_watched_as_before(away):
    """As where one of two IKE_SAs ends: that of a tunnel is no end that anybody knows of."""
    driver = StalledDriver(away, stands=True)
    assert Watch(driver, SESSION, PulledOnceBack(driver), ClientConfig(), str).run().pulled


def test_a_token_is_looked_at_while_the_helper_stays_away():
    driver = HelpedDriver(*[AWAY] * 1000, stands=True)
    script = Script(driver, HERE, HERE, GONE, GONE)
    assert Watch(driver, SESSION, script, ClientConfig(), str).run().pulled


@pytest.mark.usefixtures("soon_back")
@pytest.mark.parametrize("away", [AWAY, DAEMON_SILENT], ids=["helper", "daemon"])
def test_who_is_away_at_the_begin_is_waited_for(away):
    driver = HelpedDriver(away, away, stands=True)
    driver.gone = True
    script = PulledOnceBack(driver)
    assert Watch(driver, SESSION, script, ClientConfig(), str).run().pulled


@pytest.mark.usefixtures("soon_back")
@pytest.mark.parametrize(
    ("away", "why"),
    [(AWAY, "carnet-helper is away"), (DAEMON_SILENT, "IPsec daemon does not answer")],
)
def test_what_is_to_end_ends_when_who_is_away_is_back(monkeypatch, tmp_path, away, why):
    store, said, outcomes = SessionStore(tmp_path), [], [away] * 30

    def down(_):
        if outcomes:
            raise outcomes.pop(0)

    store.keep(SESSION)
    for module in (known, whole_end):
        monkeypatch.setattr(module, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(whole_end, "may_be_kept", lambda *_: None)
    monkeypatch.setattr(announce, "announce", said.append)
    daemon = SimpleNamespace(down=down, take_leave=down)
    supervising._end(daemon, SESSION, "Token alice was pulled out.", str)
    (record,) = store.all()
    assert record.stage.why.startswith("Token alice was pulled out.")
    assert outcomes == []
    assert len(said) == 1
    assert why in said[0]


@pytest.mark.parametrize(
    ("recorded", "has", "wanted"),
    [(True, (), True), (False, ("carnet-1",), True), (False, ("carnet-2",), False)],
)
def test_a_record_that_is_gone_is_told_from_a_disconnect(
    tmp_path, monkeypatch: pytest.MonkeyPatch, recorded, has, wanted
):
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    if recorded:
        SessionStore(tmp_path).keep(SESSION)
    assert known.is_known(SimpleNamespace(installed=lambda: frozenset(has)), SESSION) is wanted


@pytest.mark.parametrize("has", [("carnet-1",), ()], ids=["Target ended it", "she did"])
def test_whether_it_was_meant_to_live_is_looked_at_before_it_is_cleared_away(
    tmp_path, monkeypatch: pytest.MonkeyPatch, has
):
    """Where the record was lost the daemon alone tells, as long as it has something."""
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    driver = FakeDriver(stands=False)
    driver.installed, driver.loaded = lambda: frozenset(driver.loaded), set(has)
    ending = Watch(driver, SESSION, Always(), ClientConfig(resume=False), str).run()
    assert (ending.meant, driver.loaded) == (bool(has), set())


def test_what_was_ended_is_not_meant_to_live_whatever_the_daemon_has(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    """So nobody is told that it went down, who has ended it while the daemon was silent."""
    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    store = SessionStore(tmp_path)
    store.keep(SESSION)
    store.drop(SESSION.name, "You released it by hand.")
    daemon = SimpleNamespace(installed=lambda: frozenset({SESSION.name}))
    assert not known.Meant(daemon, SESSION)


def test_a_daemon_that_does_not_answer_may_have_the_tunnel(
    tmp_path, monkeypatch: pytest.MonkeyPatch
):
    def installed():
        raise IPsecError("It does not answer.")

    monkeypatch.setattr(known, "memory_directory", lambda: tmp_path)
    assert known.is_known(SimpleNamespace(installed=installed), SESSION)


def test_a_pulled_token_ends_it():
    ending, _ = run(HERE, HERE, GONE, HERE)
    assert ending.pulled
    assert ending.sentence.startswith("Token alice was pulled out, so the tunnel to work was ended")


def test_a_token_that_is_gone_from_the_start_ends_it():
    assert run(GONE, HERE)[0].pulled


def test_what_was_pulled_is_said_once_and_so_is_that_it_is_back():
    _, told = run(HERE, GONE, GONE, HERE, HERE, GONE, HERE, on_removal=OnRemoval.KEEP)
    assert [sentence.split("; ")[0] for sentence in told] == [
        "Token alice was pulled out",
        "Token alice is back.",
        "Token alice was pulled out",
        "Token alice is back.",
    ]


def test_a_service_that_restarts_pulls_no_token():
    ending, told = run(HERE, UNSEEN, UNSEEN, HERE)
    assert not ending.pulled
    assert told == []


def test_a_service_that_stays_away_counts_as_pulled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "UNSEEN_SECONDS", 0)
    ending, _ = run(HERE, UNSEEN, HERE)
    assert ending.pulled
    assert "cannot be seen, since the smart-card service is gone" in ending.sentence


def watched(seconds_left: int, clock_behind: int = 0):
    """Watch over a session that has so long to live by this machine's clock."""
    driver, told = FakeDriver(), []
    session = replace(SESSION, expires=int(time.time()) + seconds_left, clock_behind=clock_behind)
    script = Script(driver, HERE, HERE, HERE)
    ending = Watch(driver, session, script, ClientConfig(), told.append).run()
    return ending, told


def test_a_session_that_ends_soon_is_announced_once():
    ending, told = watched(200)
    assert not ending.over
    assert len(told) == 1
    assert told[0].startswith("The tunnel to work ends in 3m")


@pytest.mark.parametrize(("is_down", "announced"), [(False, 1), (True, 0)])
def test_the_end_of_what_the_kernel_may_carry_on_is_announced_once(is_down, announced):
    """Whichever watch does, for there is another once there is a daemon again."""
    driver, told, once = FakeDriver(), [], threading.Event()
    session = replace(SESSION, expires=int(time.time()) + 200)
    for _ in range(2):
        looked = threading.Event()
        eye = SimpleNamespace(look=lambda looked=looked: looked.set() or HERE)
        watch_it = Watch(driver, session, eye, ClientConfig(), told.append, announced=once)
        watch_it.until_told(looked.wait, is_down=lambda: is_down)
    assert len(told) == announced


@pytest.mark.parametrize(("seconds_left", "announced"), [(300, True), (301, False)])
def test_an_end_is_announced_from_five_minutes_before_on(seconds_left: int, announced: bool):
    now = 1_000_000
    session = replace(SESSION, expires=now + seconds_left)
    assert session.ends_soon(now) is announced


def test_a_session_whose_time_is_over_ends():
    ending, _ = watched(-60)
    assert ending.over
    assert "its time is over" in ending.sentence


class Later(Script):
    """Between two looks one of the clocks has gone on by two hours."""

    def __init__(self, driver: FakeDriver, go_on: Callable[[], None]) -> None:
        super().__init__(driver, HERE)
        self.go_on = go_on

    def look(self) -> Presence:
        self.looks += 1
        if self.looks == 2:
            self.go_on()
        if self.looks == 4:
            self.driver.ends.set()
        return HERE


@pytest.mark.parametrize(
    ("clock", "asleep"), [("time", False), ("clock_gettime", True)], ids=["set", "asleep"]
)
def test_a_session_ends_when_its_time_came_in_her_sleep_and_by_no_clock_that_was_set(
    monkeypatch: pytest.MonkeyPatch, clock: str, asleep: bool
):
    """No event says so: it is later. The tunnel still stands."""

    def go_on() -> None:
        true = getattr(time, clock)
        monkeypatch.setattr(time, clock, lambda *which: true(*which) + 7200)

    began = {"established_at": int(time.time()), "boot": boot_id(), "begun": uptime()}
    driver = FakeDriver()
    script = Later(driver, go_on)
    ending = Watch(driver, replace(SESSION, **began), script, ClientConfig(), str).run()
    assert (ending.over, script.looks) == ((True, 2) if asleep else (False, ANY))


@pytest.mark.parametrize(("left", "behind"), [(3600, 100_000), (-3600, -100_000)])
def test_no_clock_alone_ends_a_session(left, behind):
    """Neither the Host's, which came over the network, nor a machine's that is ahead."""
    assert not watched(left, behind)[0].over


def test_what_target_signed_is_why_it_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tunnel_watch, "why_ended", lambda *_: Ending("work says why.", over=True))
    ending, _ = run(HERE)
    assert (ending.sentence, ending.over) == ("work says why.", True)


def test_a_tunnel_is_watched_through_the_module_that_it_came_by(tmp_path):
    for name in ("named.so", "other.so"):
        (tmp_path / name).touch()
    config = ClientConfig(module=str(tmp_path / "other.so"))
    for named in (str(tmp_path / "named.so"), None):
        seen = lookout(config, replace(SESSION, module=named))
        assert seen._path == tmp_path / (Path(named).name if named else "other.so")

"""What carnet-helper ends by itself, whatever its user's own agent does."""

import threading
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from carnet.errors import DaemonSilentError, IPsecError
from carnet.ipsec import patience
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from helper_agent import guard as guards
from helper_agent.claims import Holding, Leading
from helper_agent.guard import LATE_SECONDS, MOST_SAS, Guard
from helper_agent.heard import Heard
from helper_agent.owners import Owners
from helper_agent.side_by_side import AT_ONCE
from lab.waiting import wait_until

HERS, ROOTS = "carnet-" + "0a" * 16, "carnet-" + "0b" * 16
INSTALLED = Leading(
    objective=Objective.ESP,
    mode=Mode.TUNNEL,
    ike_version=2,
    targets=frozenset({"198.51.100.2", "2001:db8::2"}),
    networks=frozenset({"10.20.0.0/16"}),
    virtual_address="10.99.0.2",
)
GIVEN = "10.99.0.2, 203.0.113.2"
WAIT = 60


def live(name=HERS, virtual_address="10.99.0.2", remote_address="198.51.100.2", **more):
    ends = {"local_selectors": ("10.99.0.2/32",), "remote_selectors": ("10.20.0.0/16",)}
    facts = {"established": True, "other_peers": (), "sas": 2} | ends | more
    return SimpleNamespace(
        name=name, virtual_address=virtual_address, remote_address=remote_address, **facts
    )


class Daemon:
    """What stands, and what is told of it; then it goes.

    It tells nothing before all that was told was looked at, unless it tells `all_at_once`.
    """

    def __init__(self, *changes: Change, all_at_once: bool = False) -> None:
        self.changes = changes
        self.all_at_once = all_at_once
        self.turns = threading.Semaphore(0)
        self.stands = [live()]
        self.begun, self.told = threading.Event(), threading.Event()
        self.went = threading.Event()
        self.not_begun: list[IPsecError] = []
        self.troubles: list[IPsecError] = []
        self.nonsense: list[Exception] = []
        """What it tells that cannot be read."""
        self.not_ended: Exception | None = None
        self.not_gone: Exception | None = None
        self.watches = 0
        self.ended: list[str] = []

    def watch(self):
        """Tell it once begun, and say when the last of it was taken in."""
        if self.not_begun:
            raise self.not_begun.pop(0)
        self.watches += 1
        self.turns = threading.Semaphore(0)
        self.told.clear()
        return self._events()

    def _events(self):
        self.begun.wait(WAIT)
        if self.nonsense:
            raise self.nonsense.pop()
        for change in self.changes:
            self._wait_for_its_turn()
            yield TunnelEvent(HERS, change)
        self._wait_for_its_turn()
        self.told.set()

    def _wait_for_its_turn(self):
        assert self.all_at_once or self.turns.acquire(timeout=WAIT)

    def status(self):
        if self.troubles:
            raise self.troubles.pop()
        return list(self.stands)

    def down(self, name):
        self.ended.append(name)
        if self.not_ended:
            raise self.not_ended
        self.stands = [each for each in self.stands if each.name != name]

    def gone(self):
        """Take away what must not stay of what went."""
        self.went.set()
        if self.not_gone:
            raise self.not_gone


@pytest.fixture
def owners(tmp_path):
    made = Owners(tmp_path, 4)
    made.claim(HERS, Holding(1001, INSTALLED), taken=False)
    return made


@pytest.fixture
def guarding(owners, monkeypatch):
    def guard(daemon):
        class InTurn(Heard):
            def take(self):
                daemon.turns.release()
                return super().take()

        monkeypatch.setattr(guards, "Heard", InTurn)
        made = Guard(daemon, owners, daemon.gone)
        made.begin_in_time()
        return made

    return guard


def happens(daemon, *stands):
    """Have that stand, and everything be told; return what was ended."""
    daemon.stands = list(stands)
    daemon.begun.set()
    assert daemon.told.wait(WAIT)
    return daemon.ended


OTHERS = {
    "another address": live(virtual_address="203.0.113.2"),
    "one more": live(virtual_address=GIVEN),
    "one more, and nothing else yet": live(virtual_address=GIVEN, established=False),
    "another peer besides": live(other_peers=("203.0.113.2",)),
    "another peer": live(remote_address="203.0.113.2"),
    "no address": live(virtual_address=None),
    "fewer networks": live(remote_selectors=("10.20.0.0/29",)),
    "a range": live(remote_selectors=("10.20.0.1..10.20.255.254",)),
    "from a range": live(local_selectors=("10.99.0.1..10.99.0.2",)),
    "ports of it": live(remote_selectors=("10.20.0.0/16[udp/1024-65535]",)),
    "what nobody has heard of": live(remote_selectors=("", "?", "10.20.0.0/16|/0[OPAQUE]")),
    "a peer that is no address": live(remote_address="%any"),
    "ever more SAs": live(sas=MOST_SAS + 1),
    "what cannot be compared": live(remote_selectors=(None,)),
}
THE_SAME = {
    "as before": live(),
    "another of Target's addresses": live(remote_address="2001:0db8::2"),
    "two of Target's addresses": live(other_peers=("2001:db8::2",)),
    "not whole yet": live(virtual_address=None, established=False),
    "as it is rekeyed": live(sas=MOST_SAS),
    "more networks": live(remote_selectors=("10.30.0.0/16", "10.20.0.0/16")),
    "networks untold": live(local_selectors=None, remote_selectors=None),
    "root's": live(name=ROOTS, virtual_address=GIVEN),
}


@pytest.mark.parametrize("change", [Change.UP, Change.ANEW])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_what_comes_up_as_another_is_ended_and_its_user_told(guarding, change, other):
    daemon = Daemon(change)
    guard = guarding(daemon)
    assert happens(daemon, other) == [HERS]
    for ended in (Change.DOWN, Change.LOST):
        assert guard.said(TunnelEvent(HERS, ended)).change is Change.ANOTHER
        assert guard.said(TunnelEvent(ROOTS, ended)).change is ended


@pytest.mark.parametrize("change", [Change.DOWN, Change.LOST])
def test_what_is_left_where_something_went_is_ended_if_it_is_another(guarding, change):
    daemon = Daemon(change)
    guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    assert happens(daemon, OTHERS["a range"]) == [HERS]


@pytest.mark.parametrize("change", [Change.DOWN, Change.LOST])
def test_what_goes_with_the_daemon_is_not_said_to_be_ended_as_another(guarding, change):
    daemon = Daemon(change)
    guard = guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    daemon.troubles = [IPsecError("There is none.")]
    assert happens(daemon) == []
    assert guard.said(TunnelEvent(HERS, change)).change is change


def test_what_is_over_is_not_remembered(guarding):
    daemon = Daemon(Change.UP)
    guard = guarding(daemon)
    guard._ended.add(ROOTS)  # which nobody has any more
    assert happens(daemon, OTHERS["another address"]) == [HERS]
    assert guard._ended == {HERS}
    with guard.apart(HERS):
        pass
    assert not guard._at_work


def test_what_a_call_leaves_at_a_silent_daemon_is_looked_at_once_it_answers(guarding, monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0)
    daemon = Daemon()
    guard = guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    daemon.stands, daemon.troubles = [live(virtual_address=GIVEN)], [SILENT] * 3
    with pytest.raises(DaemonSilentError), guard.apart(HERS):
        pass
    wait_until(lambda: daemon.ended, "a look once the daemon answers")
    happens(daemon)


@pytest.mark.parametrize("same", THE_SAME.values(), ids=THE_SAME)
def test_what_comes_up_as_installed_stays(guarding, same):
    daemon = Daemon(Change.ANEW, Change.UP, Change.DOWN, Change.LOST)
    guard = guarding(daemon)
    assert happens(daemon, same) == []
    assert guard.said(TunnelEvent(HERS, Change.DOWN)).change is Change.DOWN


def test_what_stood_while_there_was_no_helper_is_looked_at(guarding):
    daemon = Daemon()
    daemon.stands = [live(name=ROOTS, virtual_address=GIVEN), live(virtual_address=GIVEN)]
    guarding(daemon)
    assert happens(daemon, *daemon.stands) == [HERS]


TROUBLES = [IPsecError("It refuses."), ValueError("What is that?"), MemoryError()]


@pytest.mark.parametrize("trouble", TROUBLES, ids=repr)
@pytest.mark.parametrize(
    "other", [live(virtual_address=GIVEN), live(name=ROOTS)], ids=["", "roots"]
)
def test_whatever_a_look_raises_what_it_was_for_is_ended_and_the_next_is_looked_at(
    guarding, trouble, other
):
    daemon = Daemon(Change.ANEW, Change.UP, Change.DOWN, Change.ANEW)
    guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    daemon.troubles = [trouble, trouble]
    daemon.down = daemon.ended.append  # so that it stands again
    with capture_logs() as logged:
        assert happens(daemon, other) == [HERS] * (4 if other.name == HERS else 2)
    told = [line["event"] for line in logged if "compared" in line["event"]]
    assert told == ["not-compared", "compared-again"]


@pytest.mark.parametrize("trouble", TROUBLES, ids=repr)
def test_what_cannot_be_ended_keeps_no_other_from_being_ended(guarding, owners, trouble):
    """Nor does what is done as a tunnel went."""
    more = "carnet-" + "0c" * 16
    owners.claim(more, Holding(1001, INSTALLED), taken=False)
    daemon = Daemon(Change.DOWN, Change.UP)
    daemon.stands = [live(virtual_address=GIVEN), live(name=more, virtual_address=GIVEN)]
    daemon.not_ended = daemon.not_gone = trouble
    guarding(daemon)
    with capture_logs() as logged:
        ended = happens(daemon, *daemon.stands)
    assert (set(ended), ended[-1]) == ({HERS, more}, HERS)
    faults = [(each["event"], each.get("part"), each.get("tunnel")) for each in logged]
    assert len(faults) == len(set(faults))
    assert {each for each in faults if each[0] == "not-ended"} == {
        ("not-ended", None, HERS), ("not-ended", None, more)
    }  # fmt: skip


def test_what_fails_to_tell_is_asked_to_tell_anew(guarding):
    daemon = Daemon(Change.UP)
    daemon.nonsense = [ValueError("What is that?")]
    guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    daemon.stands = [live(virtual_address=GIVEN)]
    with capture_logs():
        daemon.begun.set()
        wait_until(lambda: daemon.ended, "a look after a watch that failed")
    assert daemon.watches == 2


def test_it_begins_anew_after_pauses_that_grow_and_says_so_once(guarding, monkeypatch):
    """Nothing comes up while nobody is told of it; whoever runs it is told that nobody is."""
    daemon = Daemon(Change.UP)
    daemon.nonsense = [ValueError("What is that?") for _ in range(8)]
    waited, refused = [], []

    def pause(seconds):
        waited.append(seconds)
        with pytest.raises(IPsecError) as error, guard.apart(HERS):
            pass
        refused.append((error.value.sentence.split(",")[0], guard.failed))

    monkeypatch.setattr(guards, "sleep", pause)
    with capture_logs() as logged:
        guard = guarding(daemon)
        assert happens(daemon, live()) == []
        wait_until(lambda: guard._looking is None, "the end of the last watch")
    assert waited == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert refused == [("carnet-helper is not told of tunnels just now", True)] * 8
    assert not guard.failed
    assert [(each["event"], each["part"], "exc_info" in each) for each in logged] == [
        ("guard-failed", "hear", True),
        ("guard-works-again", "hear", False),
    ]
    assert next(guard._pauses) == waited[0]


@pytest.mark.parametrize("silences", [0, 1], ids=["", "after a silence"])
def test_what_cannot_be_begun_for_a_reason_nobody_foresaw_is_tried_again(
    guarding, monkeypatch, silences
):
    waited = []
    monkeypatch.setattr(guards, "sleep", waited.append)
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0)
    daemon = Daemon(Change.UP)
    daemon.nonsense = [ValueError("What is that?")]
    guarding(daemon)
    daemon.not_begun = [SILENT] * silences + [ValueError("Who is that?")] * 2
    with capture_logs():
        assert happens(daemon, live(virtual_address=GIVEN)) == [HERS]
    assert len(waited) == 1 + 2


def test_a_thread_that_died_is_known(guarding):
    daemon = Daemon()
    guard = guarding(daemon)
    assert not guard.failed
    guard._looking, following = threading.Thread(), guard._looking
    assert guard.failed
    guard._looking = following
    happens(daemon, live())


SILENT = DaemonSilentError("It does not answer.")


@pytest.mark.parametrize("hanging", ["status", "down", "gone"])
def test_what_never_ends_is_known_until_it_does(guarding, hanging):
    daemon, now = Daemon(Change.DOWN), [0.0]
    guard = guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    started, goes_on, does = threading.Event(), threading.Event(), getattr(daemon, hanging)

    def hang(*about):
        started.set()
        assert goes_on.wait(WAIT)
        return does(*about)

    guard._clock = lambda: now[0]
    setattr(*{"gone": (guard, "_went")}.get(hanging, (daemon, hanging)), hang)
    daemon.stands = [live(virtual_address=GIVEN)]
    daemon.begun.set()
    assert started.wait(WAIT)
    now[0] += LATE_SECONDS
    assert not guard.failed
    now[0] += 1
    assert guard.failed
    goes_on.set()
    wait_until(lambda: not guard.failed, "the end of what hung")
    assert happens(daemon) == [HERS]


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0)


@pytest.mark.usefixtures("soon")
def test_a_daemon_that_is_silent_as_it_begins_is_guarded_once_it_answers(guarding):
    daemon = Daemon(Change.UP)
    daemon.not_begun = [SILENT] * 3
    guarding(daemon)
    assert happens(daemon, live(virtual_address=GIVEN)) == [HERS]


@pytest.mark.usefixtures("soon")
def test_a_daemon_that_stays_silent_is_no_guard_that_hangs(guarding):
    daemon, now, failed = Daemon(), [0.0], []
    guard = guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    guard._clock = lambda: now[0]

    def silent():
        now[0] += LATE_SECONDS
        failed.append(guard.failed)
        if len(failed) < 4:
            raise SILENT
        return []

    daemon.status = silent
    guard._look_in_time()
    assert failed == [False] * 4
    happens(daemon)


@pytest.mark.usefixtures("soon")
def test_what_stood_at_a_silent_daemon_is_looked_at_once_it_answers(guarding):
    daemon = Daemon()
    daemon.stands, daemon.troubles = [live(virtual_address=GIVEN)], [SILENT] * 3
    guarding(daemon)
    assert happens(daemon, *daemon.stands) == [HERS]


@pytest.mark.usefixtures("soon")
def test_what_came_up_at_a_daemon_that_falls_silent_is_looked_at_once_it_answers(guarding):
    daemon = Daemon(Change.UP)
    guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    daemon.troubles = [SILENT] * 3
    assert happens(daemon, live(virtual_address=GIVEN)) == [HERS]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("silences", [0, 3], ids=["at once", "after it was silent"])
def test_with_a_daemon_that_is_gone_the_tunnels_are(guarding, silences):
    daemon = Daemon(Change.UP)
    daemon.not_begun = [*[SILENT] * silences, IPsecError("There is none.")]
    guard = guarding(daemon)
    assert daemon.went.wait(WAIT)
    guard.begin()
    assert happens(daemon, live(virtual_address=GIVEN)) == [HERS]


def test_what_a_call_brings_up_has_no_ever_more_sas_meanwhile(guarding):
    """Its Target makes some hundred in a second, and everybody has all of them listed."""
    daemon = Daemon(Change.UP)
    guard = guarding(daemon)
    with guard.apart(HERS):
        assert happens(daemon, live(sas=MOST_SAS + 1)) == [HERS]


def test_all_that_is_told_during_a_look_is_listened_to_and_looked_at_by_one(guarding, owners):
    daemon = Daemon(*[Change.ANEW, Change.UP, Change.LOST] * 100, all_at_once=True)
    looks, goes_on = [], threading.Event()

    def status():
        looks.append(list(daemon.stands))
        assert goes_on.wait(WAIT)
        return looks[-1]

    daemon.status = status
    guard = guarding(daemon)
    wait_until(lambda: looks, "the look at what stood")
    happens(daemon, live(virtual_address=GIVEN))
    goes_on.set()
    wait_until(lambda: guard._looking is None, "the end of the watch")
    assert (daemon.ended, len(looks)) == ([HERS], 2)


def test_what_a_call_ends_is_listed_only_where_that_fails(guarding):
    """Nor is anything for what is nobody's by then."""
    daemon, looks = Daemon(Change.DOWN), []
    guard = guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    status = daemon.status
    daemon.status = lambda: looks.append(daemon) or status()

    def hears(name):
        daemon.went.clear()
        guard._heard.tell(TunnelEvent(name, Change.LOST))
        assert daemon.went.wait(WAIT)  # what was told before was looked at

    daemon.stands = [live(virtual_address=GIVEN)]

    def fails():
        for name in (ROOTS, HERS, ROOTS):
            hears(name)
        assert (daemon.ended, looks) == ([], [])
        raise SILENT

    with pytest.raises(DaemonSilentError), guard.ended(HERS):
        fails()
    wait_until(lambda: daemon.ended == [HERS], "the end of what a call could not end", WAIT / 4)
    with guard.ended(HERS):
        happens(daemon)
    assert not guard._left_to_end


def test_a_slow_end_delays_few_others(guarding, owners):
    """A daemon waits for a peer that does not answer."""
    more = [f"carnet-{number:032x}" for number in range(3 * AT_ONCE)]
    owners._most = len(more) + 1
    for name in more:
        owners.claim(name, Holding(1001, INSTALLED), taken=False)
    daemon, all_there, under_way, most = Daemon(), threading.Barrier(AT_ONCE), [], []

    def slow(name):
        under_way.append(name)
        all_there.wait(WAIT)
        most.append(len(under_way))
        all_there.wait(WAIT)
        under_way.remove(name)
        daemon.ended.append(name)

    daemon.down = slow
    daemon.stands = [live(name=name, virtual_address=GIVEN) for name in more]
    guarding(daemon)
    assert daemon.went.wait(WAIT)  # what stood was looked at
    assert sorted(happens(daemon)) == more
    assert set(most) == {AT_ONCE}


def test_what_a_call_brings_up_is_looked_at_when_that_is_done(guarding):
    daemon = Daemon(Change.ANEW, Change.UP)
    guard = guarding(daemon)
    with guard.apart(HERS):
        assert happens(daemon, live(virtual_address=GIVEN)) == []
    assert daemon.ended == [HERS]


def test_after_the_daemon_went_it_begins_again(guarding):
    daemon = Daemon()
    guard = guarding(daemon)
    happens(daemon, live())
    daemon.changes = (Change.UP,)
    daemon.stands = [live(virtual_address=GIVEN)]

    def ended():
        guard.begin()
        return daemon.ended

    wait_until(ended, "a look after the daemon went")
    assert daemon.ended == [HERS]


def test_it_begins_again_while_what_went_with_the_daemon_is_taken_away(owners):
    """What a call brings up by then nobody would hear of else, once that is done."""
    daemon, goes, goes_on = Daemon(all_at_once=True), threading.Event(), threading.Event()

    def gone():
        if daemon.told.is_set():
            goes.set()
            assert goes_on.wait(WAIT)

    guard = Guard(daemon, owners, gone)
    guard.begin()
    first = guard._looking
    happens(daemon, live())
    assert goes.wait(WAIT)
    daemon.begun.clear()
    wait_until(lambda: guard._heard.is_over, "the end of what is told")
    guard.begin()
    goes_on.set()
    first.join(WAIT)
    assert (daemon.watches, guard._looking is not None) == (2, True)
    guard.begin()
    assert daemon.watches == 2
    happens(daemon)

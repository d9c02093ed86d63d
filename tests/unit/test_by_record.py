"""Each session is ended by the driver that brought it up, whichever answers by now."""

import time
from types import SimpleNamespace

import pytest

from carnet.errors import DaemonGoneError
from carnet.ipsec import drivers, inside
from carnet.ipsec.drivers import Choice, DriverName, driver_of
from carnet.ipsec.spec import Role
from tests.unit.test_sessions import a_session
from token_client import by_record, closing, ending_by_hand, status
from token_client.by_record import ByRecord
from token_client.describing import describe, facts
from token_client.session_states import State
from token_client.sessions import SessionStore

LATER = int(time.time()) + 3600
LIBRESWAN, STRONGSWAN = DriverName.LIBRESWAN, DriverName.STRONGSWAN


class Daemon:
    """One that answers or is gone, and notes what it is told to end."""

    def __init__(self, name, answers):
        self.name, self._answers, self.ended = name, answers, []

    def answers(self):
        return self._answers

    def status(self):
        if not self._answers:
            raise DaemonGoneError(f"{self.name} is gone.")
        return [self.name]

    def resumable(self):
        return frozenset(self.status())

    installed = resumable

    def down(self, name):
        self.ended.append(name)

    def take_leave(self, name):
        return name in self.ended


@pytest.fixture
def daemons(monkeypatch):
    """strongSwan's answers, and Libreswan's is gone."""
    made = {name: Daemon(name, name is STRONGSWAN) for name in DriverName}
    monkeypatch.setattr(drivers, "open_driver", lambda name, _: made[name])
    return made


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(by_record, "memory_directory", lambda: tmp_path)
    return SessionStore(tmp_path)


@pytest.mark.parametrize(
    ("named", "chosen"), [(LIBRESWAN, LIBRESWAN), (None, STRONGSWAN), ("helper", STRONGSWAN)]
)
def test_who_acts_for_a_session_is_the_driver_that_its_record_names(daemons, named, chosen):
    assert driver_of(Choice(), named) is daemons[chosen]


def test_where_there_is_a_helper_it_has_all_that_is_hers(daemons, tmp_path):
    assert driver_of(Choice(helper=tmp_path), LIBRESWAN).name == "helper"


def test_each_tunnel_is_ended_by_the_one_that_has_it(daemons, store):
    store.keep(a_session(driver=LIBRESWAN))
    store.keep(a_session(name="carnet-01", driver=STRONGSWAN))
    ends = ByRecord(Choice())
    for name in ("carnet-00", "carnet-01", "carnet-02"):
        ends.down(name)
        assert ends.take_leave(name)
    assert daemons[LIBRESWAN].ended == ["carnet-00"]
    assert daemons[STRONGSWAN].ended == ["carnet-01", "carnet-02"]


def test_a_tunnel_whose_daemon_is_gone_is_not_said_to_be_none(daemons, store):
    """Nor does it hide what another has of which no record tells."""
    store.keep(a_session(driver=LIBRESWAN))
    ends = ByRecord(Choice())
    assert (ends.status(), ends.installed()) == ([STRONGSWAN], {STRONGSWAN})
    assert str(ends.troubles()["carnet-00"]) == "libreswan is gone."


def test_where_no_daemon_answers_that_is_said(daemons, store):
    """By the one that has what is recorded, whichever else is installed."""
    daemons[STRONGSWAN]._answers = False
    store.keep(a_session(driver=LIBRESWAN))
    ends = ByRecord(Choice())
    for ask in (ends.status, ends.resumable, ends.installed):
        with pytest.raises(DaemonGoneError, match=LIBRESWAN):
            ask()


def test_what_no_record_tells_of_is_shown_and_ended_beside_any_record(daemons, store, monkeypatch):
    store.keep(a_session(driver=LIBRESWAN, expires=LATER))
    for module in (status, ending_by_hand):
        monkeypatch.setattr(module, "memory_directory", lambda: store._directory)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset())
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    monkeypatch.setattr(inside, "_inside", inside.Here(None))
    live = SimpleNamespace(
        name="carnet-01",
        established=True,
        role=Role.CLIENT,
        local_address="192.0.2.2",
        remote_address="198.51.100.2",
        virtual_address=None,
    )
    daemons[STRONGSWAN].status = lambda: [live]
    daemons[STRONGSWAN].resumable = frozenset
    ended = ending_by_hand.end(ByRecord(Choice()), None, str)
    assert ([each.name for each in ended.states], len(ended.failures)) == (["carnet-01"], 1)
    assert daemons[STRONGSWAN].ended == ["carnet-01"]
    (left,) = store.all()
    assert (left.name, left.stage.state) == ("carnet-00", State.TO_END)
    assert "the session to work is to end" in ended.failures[0].sentence


def test_what_was_ended_without_its_daemon_hides_no_tunnel_of_another(daemons, store):
    store.keep(a_session(State.ENDED, "Its token was pulled out.", driver=LIBRESWAN))
    assert ByRecord(Choice()).status() == [STRONGSWAN]
    store.keep(a_session(name="carnet-01", driver=STRONGSWAN))
    assert ByRecord(Choice()).status() == [STRONGSWAN]
    assert ByRecord(Choice()).resumable() == ByRecord(Choice()).installed() == {STRONGSWAN}


def test_a_daemon_that_is_gone_hides_no_tunnel_of_another(daemons, store, monkeypatch):
    """Each is asked on its own, and of its tunnel it is said that nothing is known."""
    store.keep(a_session(driver=LIBRESWAN, expires=LATER))
    store.keep(a_session(name="carnet-01", driver=STRONGSWAN, expires=LATER))
    monkeypatch.setattr(status, "memory_directory", lambda: store._directory)
    monkeypatch.setattr(status.block, "names", lambda _: frozenset({"carnet-00"}))
    live = SimpleNamespace(
        name="carnet-01",
        established=True,
        role=Role.CLIENT,
        local_address="192.0.2.2",
        remote_address="198.51.100.2",
        virtual_address=None,
    )
    daemons[STRONGSWAN].status = lambda: [live]
    daemons[STRONGSWAN].resumable = frozenset
    monkeypatch.setattr(status, "what_is_carried", lambda _: None)
    by_name = {state.name: state for state in status.tunnels(ByRecord(Choice()))}
    gone, stands = by_name["carnet-00"], by_name["carnet-01"]
    assert gone.trouble.startswith("libreswan is gone; meanwhile nothing leaves in clear for")
    assert "not known whether it stands: libreswan is gone" in describe(gone)
    assert (facts(gone)["up"], stands.live, stands.trouble) == (None, live, None)

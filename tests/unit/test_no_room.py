"""Ends and what belongs to them where memory has no room for a word more: nothing waits for it."""

import errno
import os
import threading
from types import SimpleNamespace

import pytest

from carnet.errors import IPsecError
from carnet.files import rewrite_private, write_private
from carnet.ipsec.helper.client import HelperDriver
from carnet.ipsec.inside.resolved import Resolved
from helper_agent.config import HelperConfig
from helper_agent.owners import Owners
from helper_agent.service import Service
from tests.token.full import small_disk
from tests.unit import test_giving_up, test_resolved
from tests.unit.helper_world import AROUND, SPEC
from tests.unit.test_giving_up import NOT_NOW, PULLED, Gone, lasting
from tests.unit.test_helper import serving
from tests.unit.test_resolved import HAD, NAME, SERVERS
from token_client import closing, mtu, name_servers, supervising
from token_client.session_states import BY_HAND, EndBegun, LeftUnseen, Released, Stage, State
from token_client.sessions import SessionStore

NO_ROOM = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/x")
machine, said, store = test_resolved.machine, test_giving_up.said, test_giving_up.store


@pytest.fixture
def small(tmp_path):
    """A directory that is a file system in memory, and a small one."""
    directory = tmp_path / "small"
    directory.mkdir()
    with small_disk(directory, "64k") as disk:
        directory.chmod(0o700)
        yield disk


@pytest.fixture
def way(small):
    return Resolved(small.filler.parent)


def test_what_a_tunnels_servers_took_the_place_of_is_put_back(small, machine, way):
    assert way.use(NAME, SERVERS) is None
    small.fill()
    assert way.restore(NAME)
    assert (machine.has(), way.whose()) == (HAD, None)


def test_servers_of_which_nothing_could_be_written_down_are_not_used(small, machine, way):
    small.fill()
    assert os.strerror(errno.ENOSPC) in way.use(NAME, SERVERS)
    assert (machine.has(), way.whose()) == (HAD, None)


def test_who_asks_the_helper_is_told_what_is_full(small, daemon, tmp_path):
    owners, path = Owners(small.filler.parent, 2), tmp_path / "socket"
    service = Service(HelperConfig(), daemon, owners, frozenset, daemon, lambda _: AROUND)
    with serving(service, daemon, path):
        small.fill()
        with pytest.raises(IPsecError, match=f"No space left.*owners/{SPEC.name}.*make room"):
            HelperDriver(path).install(SPEC)
    assert (daemon.tunnels, owners.names()) == ({}, frozenset())


def test_a_record_says_what_became_of_its_session(small):
    records, session = SessionStore(small.filler.parent), lasting()
    records.keep(session)
    small.fill()
    with pytest.raises(OSError, match="No space"):
        write_private(small.filler.with_name("another"), b"{}")
    records.change(session.name, LeftUnseen())
    assert records.find(session.name).stage.is_unseen
    records.change(session.name, EndBegun(PULLED.sentence))
    assert records.find(session.name).stage == Stage(State.TO_END, PULLED.sentence)
    records.drop(session.name, PULLED.sentence)
    assert records.find(session.name).stage == Stage(State.ENDED, PULLED.sentence)


def test_what_has_no_place_in_a_file_changes_nothing_of_it(small):
    path = small.filler.with_name("a")
    write_private(path, b'{"a": 1}')
    small.fill()
    rewrite_private(path, b"{}")
    assert path.read_bytes() == b"{}".ljust(8)
    with pytest.raises(OSError, match="No space"):
        rewrite_private(path, bytes(5000))
    assert path.read_bytes() == b"{}".ljust(8)


def test_an_end_that_fails_unforeseen_is_said_and_tried_until_it_can_be(said, store, monkeypatch):
    daemon, session, faults = Gone(monkeypatch, heard=True), lasting(), [NO_ROOM, NO_ROOM]
    store.keep(session)

    def release(_, name, why):
        if faults:
            raise faults.pop()
        store.drop(name, why)

    monkeypatch.setattr(closing, "release", release)
    supervising._end(daemon, session, PULLED.sentence, said.append)
    not_yet, done = said
    assert "/run/x: No space left on device" in not_yet
    assert (done, store.all()[0].stage.why) == (PULLED.sentence, PULLED.sentence)


def test_who_supervises_begins_anew_whatever_fails(said, monkeypatch):
    faults, pauses = [ValueError("It is none."), NO_ROOM, NO_ROOM], []
    monkeypatch.setattr(supervising.time, "sleep", pauses.append)

    def supervise():
        if faults:
            raise faults.pop()

    supervising._go_on(supervise, None, lasting())
    assert (len(pauses), len(said)) == (3, 2)
    assert "ValueError: It is none." in said[1]


def test_what_goes_with_the_routes_is_looked_at_again_whatever_fails(monkeypatch):
    """What fails is said once, and the next change of a route is another try."""
    said, looks, last = [], [], threading.Event()
    faults = [IPsecError(NOT_NOW), NO_ROOM, NO_ROOM, ValueError("It is none.")]

    def follow(_):
        looks.append(len(faults))
        if not faults:
            last.set()
            return
        raise faults.pop()

    class Changes:
        """Routes that change until the last was looked at."""

        def wait(self):
            return not last.is_set()

        def stop(self):
            assert last.wait(20)

        def close(self):
            pass

    monkeypatch.setattr(mtu, "RouteChanges", Changes)
    monkeypatch.setattr(name_servers, "follow", follow)
    with mtu.kept(None, lasting(), said.append):
        pass
    assert looks == [4, 3, 2, 1, 0]
    assert [len(said), NOT_NOW.rstrip(".") in said[2]] == [3, True]


@pytest.mark.parametrize("released", [False, True])
def test_routes_that_are_gone_are_set_again_whenever_routes_change(tmp_path, monkeypatch, released):
    """Unless the session is ended: what was set then would stay."""
    monkeypatch.setattr(mtu, "memory_directory", lambda: tmp_path)
    session, led = lasting(virtual_address="10.99.0.7"), []
    SessionStore(tmp_path).keep(session)
    if released:
        SessionStore(tmp_path).change(session.name, Released(BY_HAND))
    changes = SimpleNamespace(wait=iter([True, False]).__next__)
    monkeypatch.setattr(mtu, "fit", lambda _: led.append("mtu"))
    mtu._keep(SimpleNamespace(lead_again=led.append), session, changes, led.append)
    assert led == (["mtu"] * 2 if released else [session.name, "mtu"] * 2)

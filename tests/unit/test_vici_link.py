"""Calling strongSwan's daemon: when it is busy, and with an interrupt within its answer."""

import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from vici.exception import SessionException

from carnet.errors import DaemonSilentError, IPsecError
from carnet.ipsec import unanswered, vici_link
from carnet.ipsec.vici_link import accepts, open_session


@pytest.fixture
def daemon(tmp_path):
    """A socket at which somebody listens."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "charon.vici"))
        listening.listen()
        yield tmp_path / "charon.vici"


@pytest.fixture
def busy(tmp_path):
    """A socket at which nobody accepts, and as many wait as can."""
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as stack:
        listening.bind(str(tmp_path / "charon.vici"))
        listening.listen(0)
        with suppress(BlockingIOError):
            while True:
                caller = stack.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(tmp_path / "charon.vici"))
        yield listening, tmp_path / "charon.vici"


def test_a_daemon_that_is_busy_is_called_again(busy, monkeypatch):
    listening, path = busy
    accepted = []
    monkeypatch.setattr(time, "sleep", lambda _: accepted.append(listening.accept()[0]))
    assert accepts(path)
    (caller,) = accepted
    caller.close()


def test_one_that_stays_busy_is_there_all_the_same(busy, monkeypatch):
    monkeypatch.setattr(vici_link, "ANSWER_TIME_LIMIT", 0.05)
    assert accepts(busy[1])
    busy[0].close()
    assert not accepts(busy[1])


@pytest.fixture
def silent(daemon, monkeypatch):
    """A socket at which whoever waits a whole time limit in vain is waited with no longer."""
    clock = [0.0]
    monkeypatch.setattr(unanswered, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    caught = pytest.raises(DaemonSilentError, match="restart it")
    with caught, open_session(daemon, 0.01) as session:
        list(session.list_sas())
    return daemon, clock


def limits_of(path, monkeypatch):
    """Return how long a session was waited with, connection by connection, until one failed."""
    limits, connect = [], vici_link._connect

    def connected(at, seconds):
        limits.append(seconds)
        return connect(at, 0.01)

    with monkeypatch.context() as patched:
        patched.setattr(vici_link, "_connect", connected)
        with pytest.raises(DaemonSilentError), open_session(path) as session:
            list(session.list_sas())
    return limits


def test_one_that_was_silent_is_asked_briefly_first(silent, monkeypatch):
    """It fails at that: who asks several times waits for one time limit and not for each."""
    path, _ = silent
    assert limits_of(path, monkeypatch) == [unanswered.BRIEF_SECONDS]


def test_one_that_was_silent_long_ago_is_waited_for(silent, monkeypatch):
    path, clock = silent
    clock[0] += unanswered.LATELY_SECONDS
    assert limits_of(path, monkeypatch) == [vici_link.ANSWER_TIME_LIMIT]


def test_a_brief_wait_does_not_make_the_memory_last(silent, monkeypatch):
    path, clock = silent
    clock[0] += unanswered.LATELY_SECONDS - 1
    limits_of(path, monkeypatch)
    clock[0] += 1
    assert not unanswered.unanswered.lately(path)


def test_one_that_answers_again_is_waited_for_as_before():
    told = unanswered.Unanswered()
    with pytest.raises(TimeoutError), told.noted(Path("daemon"), TimeoutError):
        raise TimeoutError
    asked = []
    for _ in range(2):
        told.ask_first(Path("daemon"), asked.append)
        told.ask_first(Path("another"), asked.append)
    assert asked == [unanswered.BRIEF_SECONDS]


def test_a_daemon_that_falls_silent_within_an_answer_is_not_waited_for_twice(tmp_path):
    """As the library would, which takes its leave of the daemon after each error."""
    path, heard = tmp_path / "half.vici", []

    def answer(listening):
        connection, _ = listening.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(packet(CONFIRM))
            while said := connection.recv(1024):
                heard.append(said)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        with pytest.raises(IPsecError, match="does not answer"), open_session(path, 0.05) as it:
            list(it.list_sas())
        thread.join()
    assert len(heard) == 1  # the question, and no leave


CONFIRM, EVENT = 5, 7
"""Types of packets (strongSwan's README of VICI)."""


def packet(kind):
    return struct.pack("!IB", 1, kind)


@pytest.fixture
def daemon_cut_off(tmp_path):
    """One that sends half an event, and then whoever reads it is interrupted."""

    def answer(listening, reader):
        connection, _ = listening.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(packet(CONFIRM))
            connection.recv(1024)
            connection.sendall(struct.pack("!IB", 100, EVENT) + bytes(10))
            signal.pthread_kill(reader, signal.SIGUSR1)
            with suppress(ConnectionResetError):
                while connection.recv(1024):
                    pass

    path = tmp_path / "half.vici"
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=answer, args=(listening, threading.get_ident()))
        thread.start()
        yield path
        thread.join()
    signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_within_an_answer_is_one_at_once(daemon_cut_off):
    with pytest.raises(KeyboardInterrupt), open_session(daemon_cut_off) as session:
        list(session.list_sas())


def cut_off():
    """Do as vici.Session.streamed_request() does where an interrupt comes as it reads."""
    try:
        raise KeyboardInterrupt("why")
    finally:
        raise SessionException("half of an event is no answer")


def test_an_interrupt_is_one_though_the_library_says_something_else(daemon):
    with pytest.raises(KeyboardInterrupt, match="why"), open_session(daemon):
        cut_off()


def test_what_fails_after_an_interrupt_is_told(daemon):
    try:
        raise KeyboardInterrupt  # noqa: TRY301  that is what is handled while it fails
    except KeyboardInterrupt:
        with pytest.raises(IPsecError, match="does not speak VICI"), open_session(daemon):
            raise SessionException("no answer") from None


def test_an_interrupt_of_its_own_is_one_too_after_another(daemon):
    try:
        raise ValueError  # noqa: TRY301  as above
    except ValueError:
        with pytest.raises(KeyboardInterrupt), open_session(daemon):
            cut_off()

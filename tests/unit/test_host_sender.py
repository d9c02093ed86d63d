"""The Client and a Host that is busy: it waits, but not for as long as anybody likes."""

import http.server
import socket
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate

import pytest
import tenacity

from carnet.exchange.client import AnswerArrived, NoAnswer, UnsealedNo
from token_client import nat
from token_client.host import LONGEST_WAIT_SECONDS, HostSender


@contextmanager
def answering(*answers):
    """Serve these (status, headers) one after the other; yields the URL, and what was sent."""
    sent, left = [], list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers = left.pop(0)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dripping(answer):
    """Serve one answer, a byte at a time and never whole within a second; yields the URL."""
    pace = threading.Event()

    def drip(listening):
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            for _ in range(200):
                connection.sendall(b"a")
                pace.wait(0.01)
            connection.sendall(b"\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        pace.set()
        thread.join()


def test_a_host_that_answers_by_drips_does_not_say_whether_there_is_nat(monkeypatch):
    monkeypatch.setattr(nat, "_SECONDS", 0.2)
    with dripping(b"192.0.2.1") as url:
        assert nat.behind_nat((url,)) is None


@pytest.fixture
def slept(monkeypatch):
    """Let no time pass where the Client would sleep; returns for how long it would."""
    slept, now = [], time.monotonic

    def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(tenacity.nap.time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now() + sum(slept))
    return slept


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("3", 3, 4),
        ("10", 10, 11),
        ("9999", LONGEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS + 1),
        ("99999999999999999999", 1, 2),
        ("0", 1, 2),
        ("-5", 1, 2),
        ("soon", 1, 2),
        ("", 1, 2),
        ("\u0663", 1, 2),
        ("Tue, 24 Nov 2026 21:00:00 GMT", 1, 2),
    ],
)
def test_a_busy_host_is_waited_for_but_not_for_ever(slept, said, least, most):
    told = []
    header = {"Retry-After": said.encode().decode("latin-1")}
    with answering((429, header), (200, {})) as (url, sent):
        delivery = HostSender((url,), 60, told.append).send(b"sealed")
    assert isinstance(delivery.event, AnswerArrived)
    assert sent == [b"sealed"] * 2
    (pause,) = slept
    assert least <= pause <= most
    assert [error.code for error in told] == ["host-busy"]


def test_the_clients_own_patience_is_never_passed(slept):
    busy = (429, {"Retry-After": "60"})
    with answering(*[busy] * 4) as (url, sent):
        delivery = HostSender((url,), 15, lambda _: None).send(b"sealed")
    assert delivery.event == NoAnswer("host-busy", f"{url} has too much to do")
    assert sum(slept) <= 15
    assert len(sent) == 3


def test_another_host_of_the_cover_is_asked_next(slept):
    with answering((429, {"Retry-After": "2"})) as (busy, _), answering((403, {})) as (other, sent):
        delivery = HostSender((busy, other), 60, lambda _: None).send(b"sealed")
    assert isinstance(delivery.event, UnsealedNo)
    assert sent == [b"sealed"]


@pytest.mark.parametrize("behind", [36_000, -36_000, 0])
def test_the_clock_is_compared_with_the_hosts(behind):
    date = {"Date": formatdate(time.time() + behind, usegmt=True)}
    with answering((200, date)) as (url, _):
        delivery = HostSender((url,), 5, lambda _: None).send(b"sealed")
    assert abs(delivery.clock_behind - behind) < 60


@pytest.mark.parametrize(
    "date",
    ["", "today", "Tue, 15 Nov 1994 08:12:31", "Mon, 01 Jan 99999 00:00:00 GMT", "Tue, 15 Nov"],
)
def test_a_date_that_is_none_says_nothing_of_the_clock(date):
    with answering((200, {"Date": date})) as (url, _):
        delivery = HostSender((url,), 5, lambda _: None).send(b"sealed")
    assert delivery.clock_behind == 0

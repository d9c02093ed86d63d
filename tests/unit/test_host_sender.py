"""The Client and a Host that is busy: it waits, but not for as long as anybody likes."""

import http.server
import socket
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import formatdate
from types import SimpleNamespace

import pytest
import tenacity

from carnet.exchange.client import AnswerArrived, NoAnswer, State, UnsealedNo
from token_client import connect, nat
from token_client.host import LONGEST_WAIT_SECONDS, HostSender, NotYetError, look_at_host


@contextmanager
def answering(*answers):
    """Serve these (status, headers, body) one after the other; yields the URL, and what was sent.

    There may be no body.
    """
    sent, left = [], list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, headers, *body = left.pop(0)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(b"".join(body))))
            self.end_headers()
            self.wfile.write(b"".join(body))

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
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


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {"Location": "http://login.example/"}),
        (511, {}),
        (200, {"Content-Type": "text/html; charset=utf-8"}),
    ],
)
def test_a_network_that_wants_a_login_is_not_taken_for_a_host(slept, status, headers):
    portal, told = (status, headers, b"<html>log in</html>"), []
    said = f"HTTP {status}"
    with answering(portal, portal, (200, {}, b"sealed")) as (url, _):
        sighting = look_at_host(url)
        assert (sighting.answers, sighting.wants_login, sighting.failure) == (False, True, said)
        delivery = HostSender((url,), 60, told.append).send(b"sealed")
    assert isinstance(delivery.event, AnswerArrived)  # she has logged in meanwhile
    with answering(*[portal] * 9) as (url, _):
        delivery = HostSender((url,), 5, told.append).send(b"sealed")
    assert delivery.event == NoAnswer("network-wants-login", f"{url}: {said}")
    assert {error.code for error in told} == {"network-wants-login"}


def test_connect_says_to_log_in_and_that_the_request_is_kept():
    silence, noted = NoAnswer("network-wants-login", "http://host: HTTP 302"), []
    exchange = SimpleNamespace(silence=silence, kept=True)
    error = connect._explain(exchange, State.SUSPENDED, SimpleNamespace(target="work"))
    assert error.exit_status == 6
    assert error.sentence.startswith(
        "This network wants a login first (http://host: HTTP 302); log in to it with a browser, "
        "then run `carnet connect` again within ten minutes: the same request is sent again"
    )
    connect._tell_of_silence(
        SimpleNamespace(note=noted.append), NotYetError(silence.code, silence.detail)
    )
    assert noted == ["no answer yet (http://host: HTTP 302; log in to this network), trying again"]


@pytest.mark.parametrize(
    ("answer", "is_a_hosts"),
    [
        ((200, {}, b"192.0.2.7"), True),
        ((200, {}, b"2001:db8::7\n"), True),
        ((403, {}), True),
        ((429, {"Retry-After": "2"}), True),
        ((200, {}, b"It works!"), False),
        ((403, {}, b"<html>no</html>"), False),
        ((404, {}), False),
        ((502, {}), False),
    ],
)
def test_what_answers_otherwise_is_no_host(answer, is_a_hosts):
    with answering(answer) as (url, _):
        sighting = look_at_host(url)
    assert (sighting.answers, sighting.wants_login) == (is_a_hosts, False)
    assert is_a_hosts or sighting.failure == f"HTTP {answer[0]}, and no Host answers that"


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

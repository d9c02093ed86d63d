"""What a Host comes to use, whatever is sent to it, by one or by as many as it lets in."""

import gzip
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.host.real_host import http, read_all
from tests.hostile import worst
from tests.hostile.memory import peak, reset_peak
from tests.hostile.test_memory import MOST

MIB = 1024 * 1024
CONNECTIONS = 256
CHUNKED = b"POST /v1/requests HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Served:
    def __init__(self, process):
        self.pid = process.pid
        self.port = int(process.stdout.readline())

    def connect(self, number=0):
        return socket.create_connection(
            ("127.0.0.1", self.port), 30, (f"127.0.1.{number % 250 + 1}", 0)
        )

    def send(self, pieces):
        """Send all of it, as far as it is taken, and wait for the end of the connection."""
        with self.connect() as connection, suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)

    @contextmanager
    def growth(self):
        """Yield a function that tells how much more memory was used since."""
        before = reset_peak(self.pid)
        yield lambda: peak(self.pid) - before


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    argv = [sys.executable, "-m", "tests.host.served", str(tmp_path_factory.mktemp("served"))]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        served = Served(process)
        served.send([http(b"warm up")])
        yield served
        process.stdin.close()
        process.wait()


def repeated(piece, size):
    return (piece for _ in range(size // len(piece)))


HTTP = {
    "a long body": lambda: (http(bytes(64 * MIB)),),
    "a body that never ends": lambda: (CHUNKED, *repeated(b"10000\r\n" + bytes(65538), 64 * MIB)),
    "chunks of one byte": lambda: (CHUNKED, *repeated(b"1\r\na\r\n" * 4096, 8 * MIB)),
    "a chunk said to be huge": lambda: (CHUNKED, b"7fffffffffffffff\r\n", bytes(MIB)),
    "a chunk with a long extension": lambda: (CHUNKED, b"1;" + b"a" * 16 * MIB),
    "a long trailer": lambda: (CHUNKED, b"0\r\n", *repeated(b"a: b\r\n" * 1000, 16 * MIB)),
    "a length said to be huge": lambda: (
        b"POST /v1/requests HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
        bytes(MIB),
    ),
    "a compressed body": lambda: (
        http(gzip.compress(bytes(64 * MIB)), headers=["Content-Encoding: gzip"]),
    ),
    "a request line without end": lambda: (b"POST /", *repeated(b"a" * 65536, 32 * MIB)),
    "a header without end": lambda: (b"GET / HTTP/1.1\r\nA:", *repeated(b"a" * 65536, 32 * MIB)),
    "headers without end": lambda: (b"GET / HTTP/1.1\r\n", *repeated(b"a: b\r\n" * 9999, 32 * MIB)),
    "requests in a row": lambda: repeated(http(b"x") * 100, 8 * MIB),
    "line ends": lambda: repeated(b"\r\n" * 32768, 16 * MIB),
    "an upgrade, and what comes after": lambda: (
        http(b"", headers=["Connection: upgrade", "Upgrade: websocket"]),
        *repeated(bytes(65536), 16 * MIB),
    ),
}


@pytest.mark.parametrize("what", HTTP)
def test_one_who_sends_much_costs_little(served, what):
    with served.growth() as grown:
        served.send(HTTP[what]())
        assert grown() < MOST


def test_the_worst_bodies_cost_little(served):
    with served.growth() as grown:
        for body in worst.cbor(8192).values():
            served.send([http(body)])
        assert grown() < MOST


HOLD = {
    "nothing": b"",
    "half a header": b"POST /v1/requests HTTP/1.1\r\n"
    + b"".join(b"X-%02d: " % n + b"a" * 500 + b"\r\n" for n in range(18)),
    "half a header of long names": b"POST /v1/requests HTTP/1.1\r\n"
    + b"".join(b"X%02d" % n + b"a" * 500 + b": a\r\n" for n in range(18)),
    "as much of a header as is taken": b"POST /v1/requests HTTP/1.1\r\n"
    + b"".join(b"X-%03d: " % n + b"a" * 500 + b"\r\n" for n in range(120)),
    "half a body": http(bytes(8190))[:-1],
    "a body with more behind it": http(bytes(8190))[:-1].replace(b"8190", b"9999999"),
}


@pytest.mark.parametrize("what", HOLD)
def test_as_many_as_are_let_in_cost_little_together(served, what):
    data = HOLD[what] + (bytes(4 * MIB) if what == "a body with more behind it" else b"")
    with served.growth() as grown, ExitStack() as open_:
        for number in range(CONNECTIONS):
            connection = open_.enter_context(served.connect(number))
            # What a Host reads on for ever is sent whole; of a body it takes but the beginning.
            connection.setblocking("header" in what)
            with suppress(BlockingIOError, ConnectionError):
                connection.sendall(data)
        served.send([http(b"x")])
        assert grown() < MOST

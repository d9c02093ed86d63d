"""Target's door: what is no HTTP, and who never says who he is."""

import socket
import ssl
from contextlib import ExitStack

import pytest

from target_agent.service import DOOR
from tests.host.real_host import read_all

NO_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def as_office(target):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*target.office.cert)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", target.port), 30))


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /" + b"a" * 9000,
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_the_same_few_bytes(target, data):
    with as_office(target) as connection:
        connection.sendall(data)
        assert read_all(connection) == NO_HTTP


def ended(connection):
    connection.sendall(b"GET /v1/ended?after=0 HTTP/1.1\r\nHost: work\r\n\r\n")
    return connection.recv(12)


def test_who_does_not_begin_with_tls_keeps_no_host_out(target):
    with as_office(target) as earlier, ExitStack() as idle:
        for number in range(3 * DOOR.connections):
            source = (f"127.0.1.{1 + number % 250}", 0)
            idle.enter_context(socket.create_connection(("127.0.0.1", target.port), 30, source))
        for _ in range(2 * DOOR.per_address):
            idle.enter_context(socket.create_connection(("127.0.0.1", target.port), 30))
        with as_office(target) as later:
            assert ended(later) == b"HTTP/1.1 200"
        assert ended(earlier) == b"HTTP/1.1 200"

"""Who only holds a connection open keeps nobody out, and uses up no descriptors."""

import asyncio
import resource
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from carnet import doors
from carnet.doors import network_of
from host_agent.config import LimitsSection
from lab.waiting import wait_until
from tests.host.real_host import UNLIMITED, http, read_all, sealed, status_of
from tests.host.test_strangers import ONE_ANSWER
from tests.unit.examples import SoftwareKey

FEW = LimitsSection(
    per_address=UNLIMITED.per_address, hsm=UNLIMITED.hsm, connections=16, connections_per_address=4
)
ESTABLISHED = "01"


@pytest.fixture
def pair():
    return SoftwareKey()


@contextmanager
def descriptors(count):
    """Allow this process, which is both ends here, so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count), hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def held(host):
    """Count the Host's ends of connections that are open."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    own = f":{host.port:04X}"
    return sum(row[1].endswith(own) and row[3] == ESTABLISHED for row in rows)


def is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_eleven_hundred_idle_connections_keep_nobody_out(make_host, pair):
    host = make_host(FEW)
    host.add_pairs(pair)
    with descriptors(4096), host, ExitStack() as idle:
        for number in range(1100):
            idle.enter_context(host.connect(f"127.0.{1 + number // 250}.{1 + number % 250}"))
        wait_until(lambda: held(host) <= FEW.connections, "the oldest to be closed")
        assert status_of(host.post(sealed(pair))) == 200


def test_the_longest_silent_of_an_address_gives_way(make_host, pair):
    host = make_host(FEW)
    host.add_pairs(pair)
    with host, ExitStack() as idle:
        another = idle.enter_context(host.connect("127.0.0.2"))
        own = [idle.enter_context(host.connect()) for _ in range(4)]
        assert status_of(host.post(sealed(pair))) == 200
        wait_until(lambda: is_closed(own[0]), "the oldest to be closed")
        assert not is_closed(another)
        assert [is_closed(each) for each in own[1:]] == [False] * 3


def test_whoever_waits_for_an_answer_is_not_thrown_out(make_host, monkeypatch):
    pairs = [SoftwareKey() for _ in range(4)]
    host = make_host(FEW)
    host.add_pairs(*pairs)
    with host, ExitStack() as waiting:
        go_on = asyncio.Event()
        find, arrived = host.service._run, []

        async def hold(exchange):
            arrived.append(exchange)
            await go_on.wait()
            await find(exchange)

        monkeypatch.setattr(host.service, "_run", hold)
        own = [waiting.enter_context(host.connect()) for _ in pairs]
        for connection, pair in zip(own, pairs, strict=True):
            connection.sendall(http(sealed(pair)))
        wait_until(lambda: len(arrived) == len(pairs), "all to arrive")
        fifth = waiting.enter_context(host.connect())
        wait_until(lambda: is_closed(fifth), "one too many to be closed")
        host._loop.call_soon_threadsafe(go_on.set)
        assert [status_of(read_all(connection)) for connection in own] == [200] * 4


def test_a_header_that_does_not_come_ends_the_connection(make_host):
    with make_host(UNLIMITED, idle_seconds=0.05) as host, host.connect() as connection:
        connection.sendall(b"POST /v1/requests HTTP/1.1\r\nHost:")
        assert read_all(connection) == b""


def test_a_connection_does_not_live_for_ever(make_host, monkeypatch):
    with make_host(UNLIMITED, life_seconds=0.05) as host:
        end = asyncio.Event()

        async def hold(exchange, *_):
            await end.wait()
            exchange.fail("host-not-ready")

        monkeypatch.setattr(host.service, "_run", hold)
        with host.connect() as connection:
            connection.sendall(http(sealed(SoftwareKey())))
            assert read_all(connection) == b""
        host._loop.call_soon_threadsafe(end.set)


def test_one_connection_carries_one_request(make_host):
    with make_host() as host, host.connect() as connection:
        connection.sendall(http(b"x", headers=["Connection: keep-alive"]))
        assert read_all(connection) == ONE_ANSWER


def test_whoever_has_said_all_gets_his_answer(make_host, pair):
    host = make_host()
    host.add_pairs(pair)
    with host, host.connect() as connection:
        connection.sendall(http(sealed(pair)))
        connection.shutdown(socket.SHUT_WR)
        assert status_of(read_all(connection)) == 200


def test_whoever_says_nothing_and_ends_is_let_go(make_host):
    with make_host(UNLIMITED, idle_seconds=60) as host, host.connect() as connection:
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""


def test_networks():
    assert network_of("::1") == "::/64"
    assert network_of("127.0.0.1") == "127.0.0.1"
    assert socket.inet_pton(socket.AF_INET6, network_of("2001:db8:1:2:3::4").partition("/")[0])


def test_a_mistake_with_one_who_comes_keeps_the_next_not_out(make_host, pair, monkeypatch):
    host, mistakes = make_host(FEW), [ZeroDivisionError]

    def network(address):
        if mistakes:
            raise mistakes.pop()
        return network_of(address)

    monkeypatch.setattr(doors, "network_of", network)
    host.add_pairs(pair)
    with host:
        with host.connect() as first:
            assert first.recv(1) == b""
        assert status_of(host.post(sealed(pair))) == 200
    assert not mistakes

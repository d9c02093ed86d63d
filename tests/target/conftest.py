"""A Target on a real SQLite file, with an IKE daemon that only remembers."""

import asyncio
import contextlib
import functools
import itertools
import secrets
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from carnet.config import LocalAddress
from carnet.database import opened_database
from carnet.errors import IPsecError
from carnet.link import LinkSection
from carnet.objectives import Objective
from carnet.tunnel import tunnel_name
from carnet.wire.control import TunnelRequest
from carnet.wire.envelope import open_request, parse_envelope, seal_request
from carnet.wire.suites import P256
from target_agent import live, watcher
from target_agent.access import AccessEntry
from target_agent.agent import Agent
from target_agent.config import StrongSwanSection, TargetConfig, TunnelsSection
from target_agent.members import Members
from tests.target.fake_driver import FakeDriver
from tests.unit.examples import SoftwareKey, make_request

ALICE = "alice@office"
HOUR = 3600


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr(watcher, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(live, "REMOVE_AGAIN_SECONDS", 0.01)


_LOWEST = 10_000


@functools.cache
def _ports():
    """The ports that the kernel gives to no connection by itself, in turn from any one of them."""
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = range(_LOWEST, int(first))
    begin = secrets.randbelow(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


def free_port():
    """Return a port that is free, and that no connection has by the time it is listened at."""
    for port in _ports():
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there are always more")


@pytest.fixture
def config(tmp_path):
    return TargetConfig(
        name="work",
        listen=LocalAddress("127.0.0.1"),
        port=free_port(),
        directory=tmp_path / "target",
        link=LinkSection(
            certificate=tmp_path / "work.crt",
            key=tmp_path / "work.key",
            authority=tmp_path / "authority.crt",
        ),
        tunnels=TunnelsSection(
            addresses=("198.51.100.2",),
            networks=("10.20.0.0/16",),
            virtual_addresses="10.99.0.0/29",
            resume_within=0,
        ),
        strongswan=StrongSwanSection(socket=Path("/nowhere/charon.vici")),
    )


def changed(config, **tunnels):
    return msgspec.structs.replace(
        config, tunnels=msgspec.structs.replace(config.tunnels, **tunnels)
    )


@pytest.fixture
def engine(config):
    with opened_database(config.database, "target_agent") as opened:
        yield opened


@pytest.fixture
def members(engine):
    members = Members(engine)
    members.add(ALICE, [AccessEntry(Objective.ESP, "10.20.0.0/16", 8 * HOUR)])
    return members


@pytest.fixture
def driver():
    return FakeDriver()


def make_statement(pair, **changes):
    """Host's statement about a request that the pair signed."""
    changes.setdefault("request_id", secrets.token_bytes(16))
    request = make_request(**changes)
    sealed = seal_request(request, pair.public_key, P256, pair)
    signed = open_request(parse_envelope(sealed), pair.public_key, pair)
    return TunnelRequest(
        version=1,
        user_id=request.user_id,
        custody="paired",
        suite=1,
        public_key=pair.public_key,
        evidence=signed.evidence,
    )


@pytest.fixture
def ask():
    """Return a new statement of Alice's Host, under a pair: ask(request_id=…, lifetime=…, …)."""

    def make(pair=None, **changes):
        return make_statement(pair or SoftwareKey(), **changes)

    return make


@contextlib.asynccontextmanager
async def running(config, driver, engine, gate=None):
    agent = Agent(config, driver, engine, gate)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()


@pytest.fixture
def with_agent(config, driver, engine, members):  # Alice is a member
    """Run a coroutine function with an agent: with_agent(body, config=…)."""

    def run(body, config=config, driver=driver, gate=None):
        async def main():
            async with asyncio.timeout(30), running(config, driver, engine, gate) as agent:
                return await body(agent)

        return asyncio.run(main())

    return run


def name_of(answering):
    return tunnel_name(answering.request_id)


async def until_established(agent, driver, answering):
    """Wait until the tunnel stands: its secrets forgotten, and the step's lock given back."""
    assert await asyncio.to_thread(driver.forgotten[name_of(answering)].wait, 20)
    async with agent._lock(answering.request_id):
        assert agent.records.find(answering.request_id).state == "established"


async def end_of(agent, host="office", after=0):
    """Wait for the next end that Target tells a Host, and return it."""
    (ended,) = await agent.ended(host, after, 20)
    return ended


class AskedInVain:
    """Silent until so many ask at the same time, which is `by_all`; then it refuses."""

    def __init__(self, count):
        self.by_all = threading.Event()
        self._barrier = threading.Barrier(count, self.by_all.set)

    def __call__(self, _):
        if not self.by_all.is_set():
            self._barrier.wait(20)
        raise IPsecError("The fake daemon is silent.")

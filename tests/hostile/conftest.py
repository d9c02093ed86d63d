"""A Host and a Target to be tried with anything."""

import asyncio
import threading

import pytest
import requests
from aiohttp import web

from carnet.database import opened_database
from carnet.link import server_context
from carnet.service import serving
from target_agent import server
from target_agent.agent import Agent
from target_agent.link_key import load_link_key
from target_agent.server import Server
from target_agent.service import DOOR
from tests.host.conftest import make_host
from tests.target.certificates import Authority
from tests.target.conftest import config
from tests.target.fake_driver import FakeDriver

__all__ = ["config", "make_host"]


class ServedTarget:
    """A Target on a thread of its own, with an IKE daemon that only remembers."""

    def __init__(self, configuration, engine, driver):
        self.config = configuration
        self._engine, self._driver = engine, driver
        self._ready = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        agent = Agent(self.config, self._driver, self._engine)
        await agent.start()
        runner = web.AppRunner(Server(agent, load_link_key(self.config.link)).application())
        context = server_context(self.config.link)
        try:
            async with serving(runner, DOOR, "127.0.0.1", 0, context) as self.port:
                self._ready.set()
                await self._stop.wait()
        finally:
            await agent.stop()


def session_of(certificate):
    session = requests.Session()
    session.cert = tuple(map(str, certificate))
    session.trust_env = False
    return session


@pytest.fixture
def target(config, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "POLL_SECONDS", 0.01)
    authority = Authority(tmp_path)
    authority.issue("work", "work")
    with opened_database(config.database, "target_agent") as engine:
        served = ServedTarget(config, engine, FakeDriver())
        with (
            served,
            session_of(authority.issue("office", "office")) as served.office,
            session_of(authority.issue("nobody")) as served.nobody,
        ):
            yield served

"""Both HTTP interfaces against their descriptions, with whatever schemathesis thinks of."""

import asyncio
import threading
from pathlib import Path

import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    status_code_conformance,
)

from carnet.database import opened_database
from carnet.link import server_context
from carnet.service import serving
from target_agent import server
from target_agent.agent import Agent
from target_agent.server import Server
from target_agent.service import DOOR
from tests.fuzz.corpus import seeds
from tests.target.certificates import Authority
from tests.target.conftest import config  # noqa: F401  a fixture
from tests.target.fake_driver import FakeDriver

DOCS = Path(__file__).parents[2] / "docs"
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance]
SETTINGS = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def spoiled(data, place, value):
    at = place % len(data)
    return data[:at] + bytes([value]) + data[at + 1 :]


SEEDS = st.sampled_from([s for s in seeds("sealed_message") + seeds("tunnel_request") if s])
BODIES = st.one_of(
    st.binary(max_size=9000),
    SEEDS,
    st.builds(spoiled, SEEDS, st.integers(0, 9999), st.integers(0, 255)),
)
schemathesis.openapi.media_type("application/cbor", BODIES)

host_schema = schemathesis.openapi.from_path(str(DOCS / "openapi-host.yaml"))
target_schema = schemathesis.openapi.from_path(str(DOCS / "openapi-target.yaml"))


@pytest.fixture
def host(make_host):
    with make_host() as serving_host:
        yield serving_host


@host_schema.parametrize()
@SETTINGS
def test_the_host_answers_as_described(case, host):
    response = case.call_and_validate(base_url=f"http://127.0.0.1:{host.port}", checks=CHECKS)
    assert response.status_code in {200, 403}
    if response.status_code == 403:
        assert response.content == b""
        assert sorted(map(str.lower, response.headers)) == ["connection", "content-length"]


class ServedTarget:
    """A Target on a thread of its own, with an IKE daemon that only remembers."""

    def __init__(self, config, engine, driver):  # noqa: F811
        self.config = config
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
        runner = web.AppRunner(Server(agent).application())
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
def target(config, tmp_path, monkeypatch):  # noqa: F811
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


@target_schema.parametrize()
@SETTINGS
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_the_target_answers_as_described(case, target):
    url = f"https://127.0.0.1:{target.port}"
    case.call_and_validate(base_url=url, session=target.office, verify=False, checks=CHECKS)


@target_schema.parametrize()
@settings(SETTINGS, max_examples=5)
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_who_has_no_name_is_told_nothing(case, target):
    url = f"https://127.0.0.1:{target.port}"
    response = case.call(base_url=url, session=target.nobody, verify=False)
    assert response.status_code in {400, 403, 404, 405}
    assert response.content == b""

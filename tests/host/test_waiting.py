"""While a Target is silent: nobody waits at the Host with bytes that he only overheard."""

import asyncio
import threading

from host_agent.target_link import TargetSilentError
from tests.host.real_host import http, read_all, sealed, spoiled, status_of
from tests.host.test_strangers import ONE_ANSWER
from tests.unit.examples import SoftwareKey


def test_whoever_has_overheard_a_request_holds_no_connection_with_it(make_host, monkeypatch):
    pair = SoftwareKey()
    host = make_host()
    host.add_pairs(pair)
    request = sealed(pair, target="work")
    with host, host.connect() as first:
        asked, speak = threading.Event(), asyncio.Event()

        async def pass_on(*_):
            asked.set()
            await speak.wait()
            raise TargetSilentError("target-unreachable", "silent")

        monkeypatch.setattr(host.service.parts.link, "pass_on", pass_on)
        first.sendall(http(request))
        assert asked.wait(30)
        assert host.post(spoiled(request)) == ONE_ANSWER
        assert status_of(host.post(request)) == 503
        host._loop.call_soon_threadsafe(speak.set)
        assert status_of(read_all(first)) == 503

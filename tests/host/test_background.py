"""What a Host does beside its requests outlives mistakes that nobody expected."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from carnet import background
from carnet.wire.control import EndedTunnels
from host_agent import hsm, hsm_service, reloading, revoked_tunnels, server
from host_agent.exchange import Parts
from host_agent.keydb import ListPlace
from host_agent.leases import Leases


class Database:
    """A Key Database in which one thing fails once, in a way that nobody expected."""

    def __init__(self, failing):
        self.failing, self.failed = failing, False
        self.asked = {}
        self.again = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def _answer(self, name, value, target=None):
        asked = self.asked[name, target] = self.asked.get((name, target), 0) + 1
        if name == self.failing and target != "other":
            if asked == 1:
                raise ZeroDivisionError(name)
            self.loop.call_soon_threadsafe(self.again.set)
        return value

    def place(self, target):
        return self._answer("cursor", ListPlace(), target)

    def tunnels_to_end(self, target):
        return self._answer("tunnels_to_end", [], target)

    def abandoned(self):
        return self._answer("abandoned", [])


class Link:
    """Targets of which no tunnel ends."""

    async def ended(self, *_):
        await asyncio.sleep(0)
        return EndedTunnels(tunnels=())


async def renew():
    """Renew no lease."""


def begin(service):
    service.background.start("leases", service.keep_leases)
    reloading.follow_targets(service, ("work", "other"))


@pytest.mark.parametrize(
    ("failing", "named"),
    [
        ("abandoned", "leases"),
        ("cursor", "ended tunnels of work"),
        ("tunnels_to_end", "revoked tunnels of work"),
    ],
)
def test_what_fails_is_logged_shown_and_begun_anew(monkeypatch, failing, named):
    monkeypatch.setattr(server, "RENEW_SECONDS", 0)
    monkeypatch.setattr(revoked_tunnels, "LOOK_SECONDS", 0)
    waited, failed, go_on = [], asyncio.Event(), asyncio.Event()

    async def wait(self, name):
        self._waiting.add(name)
        waited.append(service.background.failed)
        failed.set()
        await go_on.wait()
        self._waiting.discard(name)

    async def main():
        nonlocal service
        database = Database(failing)
        leases = SimpleNamespace(renew=renew, holds=Leases.holds)
        service = server.HostService(Parts(database, None, Link(), leases, None))
        begin(service)
        await asyncio.wait_for(failed.wait(), 10)
        go_on.set()
        await asyncio.wait_for(database.again.wait(), 10)
        assert service.background.failed == []
        text = generate_latest(service.parts.metrics.registry).decode()
        assert f'carnet_host_background_failures_total{{task="{named}"}} 1.0' in text
        await service.stop()

    service = None
    monkeypatch.setattr(background.Background, "_wait", wait)
    with capture_logs() as logs:
        asyncio.run(main())
    assert waited == [[named]]
    assert [each["task"] for each in logs if each["event"] == "task-failed"] == [named]


class Login:
    """An HSM that is there; to look whether it is fails once, in a way that nobody expected."""

    serial = "1"

    def __init__(self):
        self.looks = 0
        self.looked_again = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def log_in(self):
        return self.serial

    def log_out(self):
        """Nothing was kept."""

    def check(self):
        self.looks += 1
        if self.looks == 1:
            raise ZeroDivisionError("check")
        self.loop.call_soon_threadsafe(self.looked_again.set)


def test_the_hsm_is_looked_at_again_after_a_look_that_failed(monkeypatch):
    monkeypatch.setattr(hsm_service, "WATCH_SECONDS", 0)
    monkeypatch.setattr(background, "RESTART_SECONDS", 0)
    counted = []

    async def main():
        beside, login = background.Background(counted.append), Login()
        monkeypatch.setattr(hsm, "HsmLogin", lambda *_: login)
        async with hsm.open_hsm(None, "1234", background=beside):
            await asyncio.wait_for(login.looked_again.wait(), 10)
            assert beside.failed == []

    with capture_logs() as logs:
        asyncio.run(main())
    assert counted == ["hsm"]
    assert [each["task"] for each in logs if each["event"] == "task-failed"] == ["hsm"]

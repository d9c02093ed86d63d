"""A Target at its real link, in a thread of the test's process; its IKE daemon is a fake."""

import asyncio
import threading
from pathlib import Path

from carnet.config import LocalAddress
from carnet.database import opened_database
from carnet.link import LinkSection
from carnet.objectives import Objective
from target_agent.access import AccessEntry
from target_agent.config import StrongSwanSection, TargetConfig, TunnelsSection
from target_agent.members import Members
from target_agent.records import Records
from tests.target.conftest import ALICE, free_port
from tests.target.fake_driver import FakeDriver
from tests.target.test_server import serving

HOUR = 3600


class Gateway:
    """`work`, which lets alice in; a context manager."""

    def __init__(self, directory: Path, authority):
        certificate, key = authority.issue("work", "work")
        self.driver = FakeDriver()
        self.port = free_port()
        self._config = TargetConfig(
            name="work",
            listen=LocalAddress("127.0.0.1"),
            port=self.port,
            directory=directory / "target",
            link=LinkSection(certificate=certificate, key=key, authority=authority.path),
            tunnels=TunnelsSection(
                addresses=("198.51.100.2",),
                networks=("10.20.0.0/16",),
                virtual_addresses="10.64.0.0/16",
                # Nobody initiates; on a busy machine a thousand requests take long.
                initiate_within=HOUR,
            ),
            strongswan=StrongSwanSection(socket=Path("/nowhere/charon.vici")),
        )
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway")

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def session_keys(self):
        """The sealed session keys that it ever made, by Request ID."""
        records = [each for each in self.records.all() if each.state != "refused"]
        return {each.request_id: each.tunnel_answer.session_key for each in records}

    def _run(self):
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        with opened_database(self._config.database, "target_agent") as engine:
            self.records = Records(engine)
            Members(engine).add(ALICE, [AccessEntry(Objective.ESP, "10.20.0.0/16", 8 * HOUR)])
            async with serving(self._config, self.driver, engine):
                self._ready.set()
                await self._stop.wait()

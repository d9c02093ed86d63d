"""A Target with so many sessions, some live: `python -m bench.many_process SESSIONS LIVE`.

They live between two real IKE daemons in a lab of its own. At each line of standard input it
says how long each took: the list of tunnels with what the daemon says of each, the end of
one whose time is over, and the end of one that a Host revokes; from the order until SAs,
secrets, record and account say that it is gone.
"""

import asyncio
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog

from bench.child import say
from carnet.config import LocalAddress
from carnet.database import opened_database
from carnet.exchange.target import Over
from carnet.ipsec.spec import Role
from carnet.ipsec.strongswan import StrongSwan
from carnet.link import LinkSection
from carnet.objectives import Objective
from carnet.tunnel import tunnel_spec
from carnet.wire.session_key import EphemeralKey, SessionBinding
from lab.charon import Charon, choose_lane
from lab.network import TARGET_ADDRESS, WORK_NETWORK
from lab.world import World
from target_agent.access import AccessEntry
from target_agent.agent import Agent
from target_agent.commands.tunnels import facts, reports
from target_agent.config import StrongSwanSection, TargetConfig, TunnelsSection
from target_agent.members import Members
from target_agent.records import Records
from tests.target.conftest import make_statement
from tests.unit.examples import SoftwareKey

_AT_A_TIME = 4
"""Of each is the median said."""
_USER = "alice@office"
_DAY = 86400


def configuration(directory: Path, charon: Charon) -> TargetConfig:
    """Return a Target's configuration with a pool for all; nobody connects to its link."""
    nothing = directory / "none"
    return TargetConfig(
        name="work",
        listen=LocalAddress("127.0.0.1"),
        port=1,
        directory=directory / "target",
        link=LinkSection(certificate=nothing, key=nothing, authority=nothing),
        tunnels=TunnelsSection(
            addresses=(TARGET_ADDRESS,),
            networks=(WORK_NETWORK,),
            virtual_addresses="10.99.0.0/16",
            initiate_within=_DAY,
        ),
        strongswan=StrongSwanSection(socket=charon.vici),
    )


class Many:
    """The Target, and the Client's daemon at the other end of all tunnels."""

    def __init__(self, agent: Agent, client: StrongSwan) -> None:
        self._agent, self._client = agent, client
        self.live: list[bytes] = []

    async def open(self, *, up: bool) -> bytes:
        """Have a tunnel granted, and IKE negotiated for it where it shall live."""
        ephemeral, request_id = EphemeralKey.generate(), secrets.token_bytes(16)
        statement = make_statement(
            SoftwareKey(), request_id=request_id, ephemeral_key=ephemeral.public, lifetime=_DAY
        )
        answered = await self._agent.answer(statement, "office")
        grant = answered.grant
        if grant is None:
            raise RuntimeError(f"the Target grants no tunnel: {answered.outcome}")
        if up:
            binding = SessionBinding(
                request_id=request_id, user_id=_USER, target="work", objective_id=Objective.ESP
            )
            opened = ephemeral.open(grant.session_key, binding)
            spec = tunnel_spec(Role.CLIENT, request_id, grant.tunneling_info, opened, _DAY)
            await asyncio.to_thread(self._client.install, spec)
            await asyncio.to_thread(self._client.up, spec)
            self.live.append(request_id)
        return request_id

    async def fill(self, sessions: int, live: int) -> None:
        """Make the sessions that ended, and those that live."""
        for number in range(sessions):
            lives = number >= sessions - live
            request_id = await self.open(up=lives)
            if not lives:
                await self._agent.end(request_id, "ended-by-operator")

    async def replace(self, request_id: bytes) -> None:
        """Have another live in the place of one that ended."""
        self.live.remove(request_id)
        await asyncio.to_thread(self._client.down, f"carnet-{request_id.hex()}")
        await self.open(up=True)


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """Return how many milliseconds something takes."""
    started = time.perf_counter()
    await work()
    return (time.perf_counter() - started) * 1000


_ENDS: dict[str, Callable[[Agent, bytes], Awaitable[Any]]] = {
    "expire": lambda agent, request_id: agent.feed_live(request_id, Over("expired")),
    "revoke": lambda agent, request_id: agent.end(request_id, "revoked", host="office"),
}


def list_all(records: Records, driver: StrongSwan) -> None:
    """Do what `carnet-target tunnels list --json` does."""
    live = records.live()
    json.dumps(facts(live, reports(live, driver)), default=str)


async def measure(agent: Agent, driver: StrongSwan, many: Many) -> dict[str, float]:
    """Return the median of each, in milliseconds."""
    taken: dict[str, list[float]] = {"list": [], "expire": [], "revoke": []}
    for _ in range(_AT_A_TIME):
        listing = partial(asyncio.to_thread, list_all, agent.records, driver)
        taken["list"].append(await timed(listing))
        for what, end in _ENDS.items():
            request_id = many.live[0]
            taken[what].append(await timed(partial(end, agent, request_id)))
            record = agent.records.find(request_id)
            if record is None or record.state != "ended":
                raise RuntimeError(f"{what} ended nothing")
            await many.replace(request_id)
    return {what: statistics.median(each) for what, each in taken.items()}


async def run(directory: Path, world: World, sessions: int, live: int) -> None:
    """Set up both ends; measure whenever that is asked for."""
    lane = choose_lane()
    ends = Charon(world.client, lane), Charon(world.target, lane)
    for charon in ends:
        charon.start()
    client, driver = (StrongSwan(charon.vici) for charon in ends)
    config = configuration(directory, ends[1])
    with opened_database(config.database, "target_agent") as engine:
        Members(engine).add(_USER, [AccessEntry(Objective.ESP, WORK_NETWORK, _DAY)])
        agent = Agent(config, driver, engine)
        await agent.start()
        try:
            many = Many(agent, client)
            await many.fill(sessions, live)
            say("filled")
            while await asyncio.to_thread(sys.stdin.readline):
                say(await measure(agent, driver, many))
        finally:
            await agent.stop()


@click.command()
@click.argument("sessions", type=int)
@click.argument("live", type=int)
def main(sessions: int, live: int) -> None:
    """Have a Target with so many sessions, and measure until standard input ends."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(40),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    with (
        tempfile.TemporaryDirectory(prefix="carnet-many-") as name,
        World() as world,
        # Target's agent asks its own machine for what that has.
        world.target.network(),
    ):
        asyncio.run(run(Path(name), world, sessions, live))


if __name__ == "__main__":
    main()

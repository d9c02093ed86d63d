"""`carnet-target serve`: the parts put together, until told to stop."""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import structlog
from aiohttp import web

from carnet.answers import FixedAnswer
from carnet.audit.keeper import HeadKeeper
from carnet.database import opened_database
from carnet.doors import DoorRules
from carnet.errors import CarnetError, UnreachableError, UsageError
from carnet.ipsec.driver import Driver
from carnet.link import check_name, server_context
from carnet.observers import observable
from carnet.service import Care, serve_until_stopped
from target_agent.agent import Agent
from target_agent.config import TargetConfig
from target_agent.control import is_served, sole_hold
from target_agent.control_socket import control_socket
from target_agent.gate import make_gate
from target_agent.heads import head_keeper
from target_agent.link_key import load_link_key
from target_agent.observed import observed
from target_agent.pool_block import make_pool_block
from target_agent.reloading import Reloading
from target_agent.server import Server
from target_agent.unnamed import warn_of_unnamed

log = structlog.get_logger()

DOOR = DoorRules(
    refusal=lambda: FixedAnswer(HTTPStatus.BAD_REQUEST),
    connections=128,
    per_address=32,
    idle_seconds=60,
)
"""Hosts are few, and each keeps some connections; a question for ended tunnels takes long."""


SHUTDOWN_SECONDS = 15
"""For requests to end in, and for all else afterwards."""
_UNFINISHED = (
    "The IKE daemon or the database does not answer; see that they do. What is to end does so at "
    "the next start."
)
_ORDER_SECONDS = 60
"""For which a service that begins waits for an operator's command that ends tunnels."""


async def serve(config: TargetConfig, driver: Driver, load: Callable[[], TargetConfig]) -> None:
    """Serve until SIGTERM or SIGINT; raises CarnetError where it cannot start.

    `load` reads the configuration again.
    """
    link, key = server_context(config.link), load_link_key(config.link)
    check_name(config.link, "target", config.name)
    with (
        sole_hold(config.lock, _ORDER_SECONDS, partial(is_served, config)) as alone,
        opened_database(config.database, "target_agent") as engine,
    ):
        if not alone:
            raise _held(config)
        agent = Agent(config, driver, engine, make_gate(config), make_pool_block(config))
        heads = head_keeper(config, engine)
        await agent.start()
        await asyncio.to_thread(warn_of_unnamed, driver, config.tunnels.addresses)
        agent.background.start("signed accounts", heads.run)
        try:
            server, seen = Server(agent, key), observed(agent, engine)
            care = Care(seen.failed, Reloading(config, load, agent, driver, server, link).take_over)
            async with (
                control_socket(agent, config.control_socket),
                observable(seen, config.observers),
            ):
                runner = web.AppRunner(server.application(), shutdown_timeout=SHUTDOWN_SECONDS)
                await serve_until_stopped(runner, DOOR, config.listen, config.port, care, link)
        finally:
            await _end(agent, heads)


async def _end(agent: Agent, heads: HeadKeeper) -> None:
    """End what goes on, and sign the accounts, unless daemon or database do not answer."""
    try:
        async with asyncio.timeout(SHUTDOWN_SECONDS):
            await agent.stop()
            await heads.sign_newest()
    except TimeoutError:
        log.warning("stopped-unfinished", remedy=_UNFINISHED)


def _held(config: TargetConfig) -> CarnetError:
    if is_served(config):
        return UsageError(
            f"Another carnet-target serves from {config.directory}; stop that one first."
        )
    return UnreachableError(
        f"A command still ends tunnels in {config.directory}, or another carnet-target begins or "
        f"stops; start this one once that is done."
    )

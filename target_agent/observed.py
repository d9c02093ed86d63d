"""What a Target shows to observers."""

import asyncio
from functools import partial

from sqlalchemy import Engine

from carnet.database.health import DatabaseHealth
from carnet.observers import Observed
from carnet.readiness import Check, Readiness
from target_agent.agent import Agent
from target_agent.schema import metadata


def observed(agent: Agent, engine: Engine) -> Observed:
    """Return what it shows; ready: its database serves, and its IKE daemon answers."""
    health = DatabaseHealth(engine, metadata, agent.metrics.count_database_error)
    checks: dict[str, Check] = {
        "database": partial(asyncio.to_thread, health.look),
        "ike-daemon": agent.check_daemon,
    }

    async def nothing_more() -> None:
        """All that is shown is in memory."""

    return Observed(
        registry=agent.metrics.registry,
        refresh=nothing_more,
        failed=lambda: agent.background.failed,
        readiness=Readiness(checks),
    )

"""What a Host shows to observers."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from carnet.database.health import DatabaseHealth
from carnet.observers import Observed
from carnet.readiness import Check, Readiness
from host_agent.exchange import Parts
from host_agent.schema import metadata

if TYPE_CHECKING:
    from host_agent.server import HostService


def observed(service: "HostService", parts: Parts) -> Observed:
    """Return it; ready is a Host whose Key Database serves and whose HSM answers."""
    metrics, hsm, database = parts.metrics, parts.hsm, parts.database
    metrics.show_host(database, hsm, lambda: service.under_way)
    health = DatabaseHealth(database.engine, metadata, metrics.count_database_error)
    hsm.on_error = metrics.count_token_error

    checks: dict[str, Check] = {
        "database": partial(asyncio.to_thread, health.look),
        "token": hsm.check,
    }
    return Observed(
        registry=metrics.registry,
        refresh=metrics.refresh,
        failed=lambda: service.background.failed,
        readiness=Readiness(checks),
    )

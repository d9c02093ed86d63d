"""What a Host shows to observers."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from carnet.database import check_writable
from carnet.observers import Observed
from carnet.readiness import Check, Readiness
from host_agent.exchange import Parts

if TYPE_CHECKING:
    from host_agent.server import HostService


def observed(service: "HostService", parts: Parts) -> Observed:
    """Return it; ready is a Host whose Key Database takes a write and whose HSM answers."""
    metrics, hsm, database = parts.metrics, parts.hsm, parts.database
    metrics.show_host(database, hsm, lambda: service.under_way)
    hsm.on_error = metrics.count_token_error

    checks: dict[str, Check] = {
        "database": partial(asyncio.to_thread, check_writable, database.engine),
        "token": hsm.check,
    }
    return Observed(
        registry=metrics.registry,
        refresh=metrics.refresh,
        failed=lambda: service.background.failed,
        readiness=Readiness(checks),
    )

"""Where observers come in: a service's metrics, whether it lives, whether it can serve.

Never where travellers or Hosts come in. Nobody is asked who he is: so it is a Unix socket
that only the service's user opens, unless the operator says otherwise.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from carnet.errors import UsageError
from carnet.observation import Place
from carnet.readiness import Readiness
from carnet.unix_socket import bind_private

log = structlog.get_logger()

STOP_SECONDS = 3
"""For which an answer is waited for once the service is to stop: what it asks may be silent."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a service shows."""

    registry: CollectorRegistry
    refresh: Callable[[], Awaitable[None]]
    """Called before the metrics are read, for what is counted only then."""
    failed: Callable[[], list[str]]
    """Names what the service does beside its requests and does no more; empty: it is well."""
    readiness: Readiness


@contextlib.asynccontextmanager
async def observable(observed: Observed, place: Place) -> AsyncIterator[None]:
    """Serve `/metrics`, `/healthz` and `/readyz` there, meanwhile.

    Raises UsageError if there can be nothing there.
    """
    if place == Place():
        yield
        return
    runner = web.AppRunner(
        _application(observed),
        access_log=None,
        handle_signals=False,
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    try:
        await _listen(runner, place)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, place: Place) -> None:
    if place.path is not None:
        await web.SockSite(runner, bind_private(place.path)).start()
        return
    if not ip_address(place.address).is_loopback:
        log.warning("observable-from-outside", address=place.address, port=place.port)
    try:
        await web.TCPSite(runner, place.address, place.port).start()
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {place.address} port {place.port} for observers: "
            f"{error.strerror or error}; correct `listen` under [observation]."
        ) from error


def _application(observed: Observed) -> web.Application:
    async def metrics(_: web.Request) -> web.Response:
        await observed.refresh()
        body = generate_latest(observed.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def healthz(_: web.Request) -> web.Response:
        failed = observed.failed()
        return _answer(not failed, {"failed": failed})

    async def readyz(_: web.Request) -> web.Response:
        found = await observed.readiness.look()
        return _answer(not any(found.values()), {part: why or "ok" for part, why in found.items()})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application


def _answer(well: bool, facts: Mapping[str, object]) -> web.Response:
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return web.json_response(facts, status=status)

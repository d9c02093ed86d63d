"""What `carnet-host serve` puts together, starts and ends."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
from aiohttp import web

from carnet.audit.keeper import HeadKeeper
from carnet.background import Background
from carnet.link import check_name, client_context
from carnet.observers import observable
from carnet.service import Care, serve_until_stopped, serving
from carnet.wire.suites import numbers_of
from host_agent import officer_interface
from host_agent.admission import Admission
from host_agent.agreement import check_agreement
from host_agent.batch_file import officer_key
from host_agent.config import HostConfig
from host_agent.door import door_rules
from host_agent.exchange import Parts
from host_agent.heads import head_keeper
from host_agent.hsm import open_hsm
from host_agent.hsm_check import check_hsm
from host_agent.keydb import KeyDatabase
from host_agent.leases import Leases
from host_agent.marks import Marks
from host_agent.metrics import HostMetrics
from host_agent.observed import observed
from host_agent.officer_interface import OfficerInterface, interface_context
from host_agent.reloading import Reloading, follow_targets
from host_agent.rollback import Witness
from host_agent.server import HostService
from host_agent.target_link import TargetLink

log = structlog.get_logger()

SHUTDOWN_SECONDS = 15
"""For requests to end in, and to be given back or cut off in afterwards."""
_UNFINISHED = (
    "The Key Database does not answer; see that it does. What is left is taken up then, by "
    "another process of the Host or at the next start."
)


async def serve(config: HostConfig, pin: str, load: Callable[[], HostConfig]) -> None:
    """Serve until told to stop; raises CarnetError where it cannot start.

    `load` reads the configuration again.
    """
    context = client_context(config.link)
    check_name(config.link, "host", config.name)
    officer_key(config.officer)
    with KeyDatabase.opened(config.key_database) as database:
        await asyncio.to_thread(check_agreement, database)
        await _serve(config, pin, database, context, load)


async def _serve(
    config: HostConfig,
    pin: str,
    database: KeyDatabase,
    context: ssl.SSLContext,
    load: Callable[[], HostConfig],
) -> None:
    witness = Witness(database)
    metrics = HostMetrics()
    background = Background(metrics.count_failure, metrics.expect_failures)
    check = partial(check_hsm, database, witness, config.name)
    async with open_hsm(config.token, pin, check, background) as hsm:
        marks = Marks(hsm, witness, config.name)
        link = TargetLink(config.targets, context)
        leases = Leases(database)
        admission = Admission(config.limits)
        suites = numbers_of(config.suites)
        parts = Parts(database, hsm, link, leases, admission, suites, metrics)
        service = HostService(parts, background)
        hsm.on_return = service.hsm_returned
        hsm.on_unseen = service.sweep.key_unseen
        heads = head_keeper(config.name, database, hsm, marks)
        try:
            await service.take_up_unanswered()
            background.start("sweep", service.sweep.keep)
            background.start("leases", service.keep_leases)
            follow_targets(service, tuple(config.targets))
            background.start("signed accounts", heads.run)
            runner = web.ServerRunner(service.server(), shutdown_timeout=SHUTDOWN_SECONDS)
            rules = door_rules(config.limits)
            interface = OfficerInterface(config, database, hsm, heads.sign_newest)
            seen = observed(service, parts)
            care = Care(seen.failed, Reloading(config, load, service, context).take_over)
            async with _officers_door(config, interface), observable(seen, config.observers):
                await serve_until_stopped(runner, rules, config.listen, config.port, care)
        finally:
            await _end(service, heads)
            await link.close()


async def _end(service: HostService, heads: HeadKeeper) -> None:
    """End what goes on, and sign the accounts, unless the database does not answer."""
    try:
        async with asyncio.timeout(SHUTDOWN_SECONDS):
            await service.stop()
            await heads.sign_newest()
    except TimeoutError:
        log.warning("stopped-unfinished", remedy=_UNFINISHED)


@asynccontextmanager
async def _officers_door(config: HostConfig, interface: OfficerInterface) -> AsyncIterator[None]:
    """Serve the officer's interface too, where it is configured."""
    section = config.interface
    if section is None:
        yield
        return
    runner = web.ServerRunner(interface.server())
    context = interface_context(section, config)
    rules = officer_interface.door_rules()
    try:
        async with serving(runner, rules, section.listen, section.port, context):
            yield
    finally:
        await interface.stop()

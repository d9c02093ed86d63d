"""What Host and Target have in common as services: logs, and serving until told to stop."""

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from structlog.typing import Processor

from carnet.doors import Door, DoorRules, listen
from carnet.errors import UsageError
from carnet.observation import LogForm


def start_log(form: LogForm = LogForm.JSON) -> None:
    """Write the log to standard error, a line for each event; never a secret in it.

    What libraries log takes the same form. Whoever works on a request binds its Request
    ID as a context variable, and each of its lines has it.
    """
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _RENDERING[form]
    structlog.configure(
        processors=[*common, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common, processors=[remove, *rendering]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


_RENDERING: dict[LogForm, list[Processor]] = {
    LogForm.JSON: [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
    LogForm.TEXT: [structlog.dev.ConsoleRenderer(colors=False)],
}


async def serve_until_stopped(
    runner: web.BaseRunner,
    rules: DoorRules,
    address: str,
    port: int,
    context: ssl.SSLContext | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop listening and let requests end.

    Raises UsageError if the address cannot be bound.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(runner, rules, address, port, context):
        structlog.get_logger().info("ready", address=address, port=port)
        await stop.wait()
        structlog.get_logger().info("stopping")


@asynccontextmanager
async def serving(
    runner: web.BaseRunner,
    rules: DoorRules,
    address: str,
    port: int,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve in the background; yields the port, which port 0 leaves to the system.

    Raises UsageError if the address cannot be bound.
    """
    try:
        listening = listen(address, port)
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"Cannot listen on {address!r} port {port}: {reason}; "
            f"correct the configuration, or stop what listens there."
        ) from error
    with listening:
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("a runner that was set up has a server")
        door = Door(runner.server, rules, context)
        accepting = asyncio.create_task(door.accept(listening))
        try:
            yield listening.getsockname()[1]
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            door.close()
            await runner.cleanup()

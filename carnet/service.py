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

from carnet.doors import Door, DoorRules, listen
from carnet.errors import UsageError


def log_as_json() -> None:
    """Write one JSON object a line to standard error; never a secret in it."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


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

"""What Host and Target have in common as services: logs, and serving until told to stop."""

import asyncio
import logging
import signal
import ssl
import sys

import structlog
from aiohttp import web

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


async def hide_server(_: web.Request, response: web.StreamResponse) -> None:
    """Tell strangers nothing about what serves here."""
    response.headers["Server"] = "carnet"


async def serve_until_stopped(
    application: web.Application, address: str, port: int, context: ssl.SSLContext | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; then stop listening and let requests end.

    Raises UsageError if the address cannot be bound.
    """
    application.on_response_prepare.append(hide_server)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port, ssl_context=context).start()
        structlog.get_logger().info("ready", address=address, port=port)
        await stop.wait()
        structlog.get_logger().info("stopping")
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {address} port {port}: {error.strerror}; "
            f"correct the configuration, or stop what listens there."
        ) from error
    finally:
        await runner.cleanup()

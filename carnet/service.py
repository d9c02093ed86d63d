"""What Host and Target have in common as services: logs, and serving until told to stop."""

import asyncio
import logging
import os
import signal
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TextIO, cast

import structlog
from aiohttp import web
from structlog.typing import Processor

from carnet.doors import Door, DoorRules, listen
from carnet.errors import CarnetError, UsageError
from carnet.observation import LogForm
from carnet.reloading import reload_with
from carnet.supervision import Manager

HANGING_SECONDS = 3
"""For threads to end in once the service has ended."""


def start_log(form: LogForm = LogForm.JSON) -> None:
    """Write the log to standard error, a line for each event; never a secret in it.

    What libraries log takes the same form. Whoever works on a request binds its Request
    ID as a context variable, and each of its lines has it. A line that standard error does
    not take is lost, and nothing else with it.
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
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Output(sys.stderr))),
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common, processors=[remove, *rendering]
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Output:
    """Takes every line: the disk may be full, and whoever read the log may have gone.

    Libraries' lines need none: `logging` lets no handler's failure reach who logs.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what can be written; a stream that is full keeps some for later."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.write(text)

    def flush(self) -> None:
        """Do the same with what is left."""
        if self._stream is not None:
            with suppress(OSError):
                self._stream.flush()


_RENDERING: dict[LogForm, list[Processor]] = {
    LogForm.JSON: [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
    # Where rich is installed, its own way of showing a traceback shows what each frame held.
    LogForm.TEXT: [
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    ],
}


@dataclass(frozen=True)
class Care:
    """What a service does for whoever runs it."""

    failed: Callable[[], list[str]]
    """Names what it does beside its requests and does no more; empty: it is well."""
    take_over: Callable[[], list[str]]
    """Reads its configuration again; returns what needs a start anew. Raises CarnetError."""


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run a service until it has ended; then the process ends soon, whatever thread hangs.

    Python would wait for each, for ever where a database server or a disk stands still. What
    such a thread was at is left as by a kill. Raises what the service does; where that is not
    told before the process ends, the log has it.
    """
    with asyncio.Runner() as runner:
        try:
            runner.run(service)
        except Exception as error:
            _end_soon(error)
            raise
        _end_soon()


def _end_soon(error: Exception | None = None) -> None:
    """Have the process end after a while, unless it has: with the status that it would have."""
    end = threading.Timer(HANGING_SECONDS, _end, (error,))
    end.daemon = True
    end.start()


def _end(error: Exception | None) -> None:
    if error is None:
        os._exit(0)
    log = structlog.get_logger()
    if isinstance(error, CarnetError):
        log.critical("service-failed", reason=error.sentence)
        os._exit(error.exit_status)
    log.critical("service-failed", exc_info=error)
    os._exit(1)


async def serve_until_stopped(
    runner: web.BaseRunner,
    rules: DoorRules,
    address: str,
    port: int,
    care: Care,
    context: ssl.SSLContext | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; then stop listening and let requests end.

    The service manager is told, SIGHUP reads the configuration again. Raises UsageError if
    the address cannot be bound.
    """
    log, manager = structlog.get_logger(), Manager()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        manager.reloading()
        reload_with(care.take_over)
        manager.ready()

    async with serving(runner, rules, address, port, context):
        loop.add_signal_handler(signal.SIGHUP, reload)
        log.info("ready", address=address, port=port)
        manager.ready()
        alive = asyncio.create_task(manager.keep_alive(care.failed))
        await stop.wait()
        log.info("stopping")
        manager.stopping()
        alive.cancel()


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

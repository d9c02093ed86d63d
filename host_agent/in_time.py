"""An answer in time: who would wait longer for the Key Database is told to come again."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.database.readers import ask
from host_agent.keydb import KeyDatabase

log = structlog.get_logger()
T = TypeVar("T")

ANSWER_SECONDS = 18
"""After which whoever has no answer yet is told to come again; a Client gives up after 20."""
LOOK_SECONDS = 2
"""Between two looks whether the database answers."""


class SilentError(Exception):
    """The Key Database does not answer; what waits for it goes on when it does."""


async def unless_silent(work: Awaitable[T], database: KeyDatabase) -> T:
    """Wait for what may take its time, and return what comes of it, or raise what it raises.

    Raises SilentError where the database answers no question for ANSWER_SECONDS meanwhile. The
    work goes on then, as it does where whoever waits is cancelled.
    """
    task = asyncio.ensure_future(work)
    if not await is_over(task, database, ANSWER_SECONDS):
        task.add_done_callback(_say_late)
        raise SilentError(f"no answer for {ANSWER_SECONDS} s")
    return task.result()


async def is_over(task: "asyncio.Future[Any]", database: KeyDatabase, seconds: float) -> bool:
    """Wait for it; False where the database answers no question for so many seconds meanwhile."""
    while not task.done():
        look = asyncio.create_task(_answers(database, seconds))
        await asyncio.wait({task, look}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not look.result():
            return False
        look.cancel()
        await asyncio.wait({task}, timeout=LOOK_SECONDS)
    return True


async def _answers(database: KeyDatabase, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await ask(database.clock)
    except (SQLAlchemyError, TimeoutError):
        return False
    return True


def _say_late(task: "asyncio.Future[Any]") -> None:
    """Log what came of it, if anything did: nobody else hears of it."""
    if not task.cancelled():
        error = task.exception()
        log.warning("done-late", failure=error and (str(error) or type(error).__name__))

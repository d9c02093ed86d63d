"""What a service does beside its requests, for ever: it outlives mistakes nobody expected."""

import asyncio
from collections.abc import Callable, Coroutine

import structlog

log = structlog.get_logger()

RESTART_SECONDS = 5.0
"""After which work that failed is begun anew; until then it is named as failed."""

Work = Callable[[], Coroutine[None, None, None]]
"""Begins the work; called again where it failed."""


class Background:
    """Work that is begun anew whenever it fails; what it had made durable it finds again."""

    def __init__(
        self, count: Callable[[str], None], expect: Callable[[str], None] = lambda _: None
    ) -> None:
        """`count` is told the name of what failed, each time; `expect` of what begins."""
        self._count = count
        self._expect = expect
        self._waiting: set[str] = set()
        self._named: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def failed(self) -> list[str]:
        """What was started and does not run, or failed and is not begun anew yet."""
        ended = {name for name, task in self._named.items() if task.done()}
        return sorted(ended | self._waiting)

    def start(self, name: str, work: Work) -> None:
        """Do the work for ever, in a task; in the place of what has that name.

        Once stop() was called nothing is started any more.
        """
        if self._stopping:
            return
        self._expect(name)
        if name in self._named:
            self._named[name].cancel()
        task = self._named[name] = asyncio.create_task(self.keep(name, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel all that was started, and wait until it has ended."""
        self._stopping = True
        self._named.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def keep(self, name: str, work: Work) -> None:
        """Do the work for ever; ends only when it is cancelled, whatever the work makes of that."""
        self._expect(name)
        task = asyncio.current_task()
        while task is None or not task.cancelling():
            try:
                await work()
            except Exception:
                log.exception("task-failed", task=name)
            else:
                log.error("task-ended", task=name)
            self._count(name)
            await self._wait(name)

    async def _wait(self, name: str) -> None:
        self._waiting.add(name)
        try:
            await asyncio.sleep(RESTART_SECONDS)
        finally:
            self._waiting.discard(name)

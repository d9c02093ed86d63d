"""One thread for what blocks: jobs are done one after the other, in their order.

A daemon thread, unlike an executor's: a job that never returns, as in a PKCS#11
module whose HSM has gone silent, must not keep the process from ending.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Worker:
    """The thread; started at once, ended by close()."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, work: Callable[[], T]) -> T:
        """Have the thread do it; return its result, or raise what it raised.

        Whoever is cancelled does not wait any more; the job itself is done nevertheless.
        """
        import asyncio  # noqa: PLC0415  what else is here does without, and it is long to load

        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            settle = partial(_settle, future, _outcome(work))
            with suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(settle)

        self._jobs.put(job)
        return await future

    def close(self) -> None:
        """Let the thread end, after the jobs that it has."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do it on a thread of its own; return its result, or raise what it raised.

    Raises TimeoutError if it takes longer. The thread goes on with it, and does not keep
    the process from ending.
    """
    done: SimpleQueue[Future[T]] = SimpleQueue()
    Thread(target=lambda: done.put(_outcome(work)), name="within", daemon=True).start()
    try:
        outcome = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"It took longer than {seconds:g} seconds.") from None
    return outcome.result()


def begun(work: Callable[[], T]) -> "Future[T]":
    """Do it on a thread of its own; return what will have come of it."""
    outcome: Future[T] = Future()
    Thread(target=_do, args=(work, outcome), name="begun", daemon=True).start()
    return outcome


def together(works: Iterable[Callable[[], T]]) -> "list[Future[T]]":
    """Do each on a thread of its own, all at the same time; return what came of them, in order."""
    outcomes: list[Future[T]] = []
    threads = []
    for work in works:
        outcome: Future[T] = Future()
        outcomes.append(outcome)
        threads.append(Thread(target=_do, args=(work, outcome), name="together", daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _outcome(work: Callable[[], T]) -> "Future[T]":
    outcome: Future[T] = Future()
    _do(work, outcome)
    return outcome


def _do(work: Callable[[], T], outcome: "Future[T]") -> None:
    try:
        outcome.set_result(work())
    except Exception as error:  # noqa: BLE001  who waits for it gets it
        outcome.set_exception(error)


def _settle(future: "asyncio.Future[T]", outcome: "Future[T]") -> None:
    if future.done():
        return
    error = outcome.exception()
    if error is None:
        future.set_result(outcome.result())
    else:
        future.set_exception(error)

"""Threads for one kind of work that blocks: it stands in no queue with other work.

asyncio's own threads are few, and all that uses asyncio.to_thread() shares them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Up to so many of them, each begun when it is first needed."""

    def __init__(self, count: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(count, name)

    async def do(self, work: Callable[P, T], *about: P.args, **named: P.kwargs) -> T:
        """Have a thread do it, as asyncio.to_thread() would; raises what it raises."""
        call = partial(copy_context().run, work, *about, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

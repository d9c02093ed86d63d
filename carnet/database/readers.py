"""Threads for those who only read: they do not stand in one queue with those who write.

Who writes may wait for the database's lock, on one of asyncio's own threads, until all of
these are taken.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_READERS = ThreadPoolExecutor(4, "reading")


async def ask(question: Callable[P, T], *about: P.args, **named: P.kwargs) -> T:
    """Have a thread read, as asyncio.to_thread() would; raises what the question raises."""
    work = partial(copy_context().run, question, *about, **named)
    return await asyncio.get_running_loop().run_in_executor(_READERS, work)

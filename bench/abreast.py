"""Processes of our own that begin at one moment, and how long all of them take.

Each warms up, says that it is ready, waits for a line, does its work, and says so.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypeVar

WARM_UP = 16
"""Things that each does before it is ready: the first ones take longer."""
T = TypeVar("T")


def seconds(module: str, each: Sequence[Sequence[str]]) -> float:
    """Run a module so many times, each with its arguments; return the time of the longest work.

    Raises RuntimeError where one ends early.
    """
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
            for arguments in each
        ]
        _hear(started)
        begun = time.perf_counter()
        for process in started:
            if process.stdin is not None:
                process.stdin.write(b"\n")
        _hear(started)
        return time.perf_counter() - begun


def take_part(do: Callable[[T], object], things: Sequence[T]) -> None:
    """Inside: do this with some things to warm up, and with the others as soon as all are ready."""
    for each in things[:WARM_UP]:
        do(each)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    for each in things[WARM_UP:]:
        do(each)
    print("done", flush=True)  # noqa: T201


def _hear(processes: "list[subprocess.Popen[bytes]]") -> None:
    for each in processes:
        if each.stdout is None or not each.stdout.readline():
            raise RuntimeError("A process ended early.")

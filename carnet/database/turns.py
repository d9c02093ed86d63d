"""Taking turns in a process: few of its threads compete for the lock of whoever writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Semaphore

from sqlalchemy import Engine

LOCK_SECONDS = 30
"""For how long whoever writes waits for others: for his turn here, and then at the database."""
TURNS = "carnet_turns"
"""The execution option with what a thread takes before it competes: a Lock, or a Semaphore."""


@contextmanager
def turn(engine: Engine) -> Iterator[None]:
    """Wait until few enough threads of this process compete, or it took too long.

    Then the database is asked all the same, and says what is in the way.
    """
    turns: Lock | Semaphore = engine.get_execution_options()[TURNS]
    taken = turns.acquire(timeout=LOCK_SECONDS)
    try:
        yield
    finally:
        if taken:
            turns.release()

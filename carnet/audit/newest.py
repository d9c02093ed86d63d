"""The newest record that a process knows to be durable: a database without it is an older one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from carnet.database import transaction

_OPTION = "carnet_newest"
"""The execution option of transactions in which records are added."""


@dataclass(frozen=True)
class Mark:
    """One record, and by its digest all before it."""

    number: int
    digest: bytes

    @property
    def lacking(self) -> str:
        """Say that a database does not hold it."""
        return (
            f"The database is older than this process knows: record {self.number} of the accounts "
            f"is not in it, so nothing is done with it; stop what uses it, and put the newest one "
            f"in its place, all of it."
        )


class Newest:
    """What one process has seen durable, of all that it adds and of what else it is told."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.on_missing: Callable[[], object] = lambda: None
        """Called, in any thread, where a database lacks what is known: once of each record."""
        self._missed: Mark | None = None
        self._learning = threading.Lock()

    def learn(self, mark: Mark) -> None:
        """Go by this record from now on, unless a newer one is known."""
        with self._learning:
            if self.mark is None or mark.number > self.mark.number:
                self.mark = mark

    def missing(self, mark: Mark) -> str:
        """Have it told that the database lacks this one; return what to say."""
        if mark != self._missed:
            self._missed = mark
            self.on_missing()
        return mark.lacking

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Give a transaction that adds no record where the newest that is known is missing."""
        writing = Writing(self)
        with transaction(engine) as connection:
            yield connection.execution_options(**{_OPTION: writing})
        # Not before: where nothing became durable nothing is missing.
        if writing.added is not None:
            self.learn(writing.added)


@dataclass
class Writing:
    """What one transaction has to find, and what it adds."""

    newest: Newest
    added: Mark | None = None


def writing_in(connection: Connection) -> Writing | None:
    """Return that of a transaction; None where nothing is known of its database."""
    found: Writing | None = connection.get_execution_options().get(_OPTION)
    return found

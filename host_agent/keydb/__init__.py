"""The Key Database: which one-time key pairs there are, and what became of each.

Every change of state is one transaction with its audit record in it (the paper's
accounting: steps 2 and 3).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from carnet.database import opened_database
from carnet.database.place import Place
from host_agent.keydb.ended import Ended
from host_agent.keydb.pairs import OWED, Pairs
from host_agent.keydb.records import (
    Count,
    NewPair,
    PairRecord,
    PairState,
    Reason,
    RequestRecord,
)
from host_agent.keydb.requests import ANSWER_KEPT, LEASE_SECONDS, Requests

__all__ = [
    "ANSWER_KEPT",
    "LEASE_SECONDS",
    "OWED",
    "Count",
    "KeyDatabase",
    "NewPair",
    "PairRecord",
    "PairState",
    "Reason",
    "RequestRecord",
]


class KeyDatabase(Pairs, Requests, Ended):
    """One open Key Database; its methods may be called from any thread."""

    @classmethod
    @contextmanager
    def opened(cls, where: Path | Place) -> Iterator["KeyDatabase"]:
        """Open the database, a file made where there is none; raises UsageError."""
        with opened_database(where, "host_agent") as engine:
            yield cls(engine)

    def begin(self) -> Connection:
        """Return a connection for reading the accounts; close it afterwards."""
        return self._reading.connect()

"""The Key Database: which one-time key pairs there are, and what became of each.

Every change of state is one transaction with its audit record in it (the paper's
accounting: steps 2 and 3).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from carnet.database import opened_database, snapshot
from carnet.database.place import Place
from host_agent.keydb.ended import Ended, ListPlace
from host_agent.keydb.in_use import InUse, KeysInUse
from host_agent.keydb.known import Known
from host_agent.keydb.pairs import OWED, pair_in
from host_agent.keydb.records import (
    DESTRUCTION_OWED,
    Arrival,
    BatchKey,
    Count,
    NewPair,
    PairRecord,
    PairState,
    Reason,
    RequestRecord,
    Revocation,
    WrappedKey,
)
from host_agent.keydb.requests import ANSWER_KEPT, LEASE_SECONDS, Requests, request_in
from host_agent.keydb.under_way import UnderWay
from host_agent.keydb.unfinished import Leftover, Unfinished
from host_agent.keydb.wrapped import Wrapped
from host_agent.store_name import KeyStoreName

__all__ = [
    "ANSWER_KEPT",
    "DESTRUCTION_OWED",
    "LEASE_SECONDS",
    "OWED",
    "Arrival",
    "BatchKey",
    "Count",
    "KeyDatabase",
    "KeyStoreName",
    "KeysInUse",
    "Leftover",
    "ListPlace",
    "NewPair",
    "PairRecord",
    "PairState",
    "Reason",
    "RequestRecord",
    "Revocation",
    "WrappedKey",
]


class KeyDatabase(Wrapped, Requests, Ended, Unfinished, UnderWay, Known, InUse):
    """One open Key Database; its methods may be called from any thread."""

    @classmethod
    @contextmanager
    def opened(cls, where: Path | Place, *, make: bool = True) -> Iterator["KeyDatabase"]:
        """Open the database; raises UsageError.

        A file is made where there is none and `make` says so.
        """
        with opened_database(where, "host_agent", make=make) as engine:
            yield cls(engine)

    def look_up(self, key_id: bytes) -> tuple[PairRecord | None, RequestRecord | None]:
        """Return the pair of that key_id, and the request that spent it, if there are any."""
        with self._reading.begin() as connection:
            pair = pair_in(connection, key_id)
            return pair, request_in(connection, key_id) if pair else None

    def begin(self) -> Connection:
        """Return a connection for reading the accounts; close it afterwards."""
        return self._reading.connect()

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Give a connection that reads what there is at one moment."""
        return snapshot(self._engine)

"""What all parts of the Key Database stand on."""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, select

from carnet import audit
from carnet.audit.newest import Newest
from carnet.database import for_brief, for_reading
from host_agent import schema
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests

# Made once: to make a statement takes longer than to run it.
_WHOSE = (
    select(_pairs.c.user_id, _requests.c.request_id)
    .outerjoin(_requests, _requests.c.key_id == _pairs.c.key_id)
    .where(_pairs.c.key_id == bindparam("wanted"))
)


class Store:
    """One open database; its methods may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = for_reading(engine)
        self._brief = for_brief(engine)
        self.holder = secrets.token_hex(8)
        """This process, among all of the Host's, as leases name it."""
        self.newest = Newest()
        """Of the accounts, as this process knows them."""

    @property
    def engine(self) -> Engine:
        """The database, for whoever signs the accounts."""
        return self._engine

    def _writing(self, *, brief: bool = True) -> AbstractContextManager[Connection]:
        """Give a transaction, a brief one unless it also reads a file or has a token do things."""
        return self.newest.writing(self._brief if brief else self._engine)

    def _audit(self, connection: Connection, event: str, **facts: object) -> None:
        audit.append(connection, schema.audit, event, **facts)

    def _audit_all(
        self, connection: Connection, event: str, all_facts: Iterable[Mapping[str, object]]
    ) -> None:
        audit.append_all(connection, schema.audit, event, all_facts)

    def _audit_pair(
        self, connection: Connection, event: str, key_id: bytes, **facts: object
    ) -> None:
        """Account for what happened to a pair: whose it is, and by which request, is told too."""
        row = connection.execute(_WHOSE, {"wanted": key_id}).one()
        whose = {"user_id": row.user_id, "key_id": key_id, "request_id": row.request_id}
        self._audit(connection, event, **whose, **facts)


def conditions_of(which: Mapping[str, object]) -> list[ColumnElement[bool]]:
    """Return what pairs with these values meet; of a column any of a list."""
    return [
        _pairs.c[column].in_(value) if isinstance(value, list) else _pairs.c[column] == value
        for column, value in which.items()
    ]

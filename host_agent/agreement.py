"""Finding out that the Key Database does not agree with itself.

So does a file that was restored beside the -wal file of a newer one: SQLite takes each
page from one or the other, and a pair is valid again whose spending stands in the accounts.

Records are never changed, so where none is missing up to the newest that the HSM has seen
(host_agent.rollback), all of them are those that were written, whatever the other tables hold.
"""

from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Row, Select, exists, func, literal, select

from carnet.database import damage, for_reading
from carnet.database.sql import place_in
from carnet.errors import UsageError
from carnet.wire.keys import KEY_ID_LENGTH
from host_agent import schema
from host_agent.keydb import KeyDatabase, PairState

_REMEDY = (
    "It is put together from two states, as by a restoration beside the -wal file of a newer one. "
    "Stop all processes of the Host, remove the database with its -wal and -shm files, restore all "
    "of it, revoke what was used since the backup, then run `carnet-host audit restored`."
)
_FOR_EVER = ("spent", "revoked", "expired")
"""Events after which a pair is never valid again."""
_NAME = b"\x66key_id" + bytes([0x40 | KEY_ID_LENGTH])
"""In the facts of a record, what a key_id of that length follows (RFC 8949 section 3)."""


def check_agreement(database: KeyDatabase) -> None:
    """Raise UsageError if records are missing, or a pair is valid that one says is not.

    And where it has a request without its record, or the other way round, or SQLite finds a page
    that is none. All of it is read once, by the database itself. Raises SQLAlchemyError if the
    database fails.
    """
    found = damage(database.engine) or _contradiction(database)
    if found is not None:
        raise UsageError(f"The Key Database does not agree with itself: {found}. {_REMEDY}")


def _contradiction(database: KeyDatabase) -> str | None:
    with for_reading(database.engine).connect() as connection:
        count, newest = connection.execute(_extent()).one()
        if count != (newest or 0):
            return f"of {newest} records of its accounts {count} are there"
        requests, spent = connection.execute(_spendings()).one()
        if requests != spent:
            return f"it has {requests} requests, and its accounts have {spent}"
        valid = connection.execute(_valid_for_ever_invalid()).first()
    return None if valid is None else _told(valid)


def _told(row: Row[int, str, bytes]) -> str:
    return f"pair {row.key_id.hex()} is valid, and record {row.number} says that it was {row.event}"


def _extent() -> Select[int, Any]:
    return select(func.count(), func.max(schema.audit.c.number))


def _spendings() -> Select[int, int]:
    """Count what is the same twice, and neither is ever taken away."""
    of_requests = select(func.count()).select_from(schema.requests).scalar_subquery()
    spent = select(func.count()).where(schema.audit.c.event == "spent").scalar_subquery()
    return select(of_requests, spent)


def _valid_for_ever_invalid() -> Select[int, str, bytes]:
    """Select the first record after which a pair cannot be valid, and is."""
    key_id = _key_id()
    is_valid = exists().where(
        schema.key_pairs.c.key_id == key_id, schema.key_pairs.c.state == PairState.VALID
    )
    return (
        select(schema.audit.c.number, schema.audit.c.event, key_id.label("key_id"))
        .where(schema.audit.c.event.in_(_FOR_EVER), is_valid)
        .limit(1)
    )


def _key_id() -> ColumnElement[bytes]:
    facts = schema.audit.c.facts
    start = place_in(facts, literal(_NAME, LargeBinary)) + len(_NAME)
    return func.substr(facts, start, KEY_ID_LENGTH, type_=LargeBinary)

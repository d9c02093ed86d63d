"""The chain: an append-only table, each record bound to the one before by hash."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Insert,
    LargeBinary,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    func,
    literal,
    select,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from carnet import crash
from carnet.audit.meaning import MEANINGS
from carnet.audit.newest import Mark, writing_in
from carnet.database.reading import is_no_text
from carnet.database.sql import MOMENT, now, place_in
from carnet.errors import CarnetError
from carnet.wire import cbor
from carnet.wire.fault import WireError

START = bytes(32)
"""What the first record follows."""
_ROWS_AT_ONCE = 1000
_LAST = 2**63 - 1
"""The highest number that a record may have."""
_TYPES = {"number": int, "at": int, "event": str, "facts": bytes}


@dataclass(frozen=True)
class AuditRecord:
    """One record: what happened, when, and the facts of it."""

    number: int
    at: int
    """Seconds since 1970, UTC."""
    event: str
    facts: dict[str, Any]


def audit_table(metadata: MetaData) -> Table:
    """Return the definition of the audit table."""
    return Table(
        "audit",
        metadata,
        Column("number", MOMENT, primary_key=True, autoincrement=False),
        Column("at", MOMENT, nullable=False),
        Column("event", Text, nullable=False),
        Column("facts", LargeBinary, nullable=False),
        Column("digest", LargeBinary, nullable=False),
    )


class ChangedError(CarnetError, SQLAlchemyError):
    """No record can follow the newest one, so that nothing of the transaction is done.

    To whoever must outlive a database that fails, it is one that fails.
    """


def append(connection: Connection, table: Table, event: str, **facts: Any) -> None:
    """Append a record in the caller's transaction; facts are plain values, never secrets.

    Which of the paper's steps it records, and what they were in AAA, is written with it.
    The transaction is one that may write (carnet.database): there is but one at a time,
    so that no two records follow the same one. Raises ChangedError where none can follow, or
    the newest is missing that the process knows (carnet.audit.newest).
    """
    append_all(connection, table, event, [facts])


def append_all(
    connection: Connection, table: Table, event: str, all_facts: Iterable[Mapping[str, Any]]
) -> None:
    """Append a record of the same event for each of these facts, as append() does."""
    meaning = MEANINGS[event]
    meant = {"steps": list(meaning.steps), "functions": list(meaning.functions)}
    writing = writing_in(connection)
    known = (writing.newest.mark if writing else None) or Mark(0, START)
    found = connection.execute(_newest_of(table), {"known": known.number})
    at, number, previous, digest = found.one()
    if writing is not None and known.number and digest != known.digest:
        raise ChangedError(writing.newest.missing(known))
    number, previous = number or 0, previous or START
    rows = []
    for facts in all_facts:
        _check_newest(number, previous)
        number, encoded = number + 1, cbor.encode({**facts, **meant})
        previous = _digest(previous, number, at, event, encoded)
        rows.append(
            {"number": number, "at": at, "event": event, "facts": encoded, "digest": previous}
        )
    if rows:
        connection.execute(_insertion(table), rows)
        if writing is not None:
            writing.added = Mark(number, previous)
        crash.reach(f"accounts.appended {event}")


@cache
def _newest_of(table: Table) -> Select[Any]:
    """Select the time, the newest record, and the digest of the one that is known.

    Made once: to make a statement takes longer than to run it.
    """
    newest = select(func.max(table.c.number)).scalar_subquery()
    last = select(table.c.digest).where(table.c.number == newest).scalar_subquery()
    kept = select(table.c.digest).where(table.c.number == bindparam("known")).scalar_subquery()
    return select(now(), newest, last, kept)


@cache
def _insertion(table: Table) -> Insert:
    return table.insert()


def _check_newest(number: object, digest: object) -> None:
    if isinstance(number, int) and number < _LAST and isinstance(digest, bytes):
        return
    raise ChangedError(
        f"The accounts were changed: their newest record, {number!r}, is none that another can "
        f"follow, so nothing was done; keep this database, and compare it with a backup."
    )


def _nothing() -> None:
    """Let go of nothing."""


def read(connection: Connection, table: Table, *, since: int = 0) -> Iterator[AuditRecord]:
    """Yield the records, oldest first; `since` is in seconds since 1970.

    What was tampered with is shown as far as it can be read: verifying is not done here.
    Whoever takes them may take long, as a person does who reads them: so between two pages a
    connection that was in no transaction is in none, since SQLite's log cannot be emptied while
    somebody reads. Raises CarnetError where a row is nothing that a record could be.
    """
    query = select(table)
    wanted = query.where(table.c.at >= since) if since else query
    let_go = _nothing if connection.in_transaction() else connection.rollback
    return map(_record, _rows(connection, table, wanted, let_go))


def about(connection: Connection, table: Table, named: bytes, records: int) -> list[AuditRecord]:
    """Return those of so many first records whose facts hold these bytes, oldest first.

    The database looks for them, so that all others need not be read.
    """
    holds = place_in(table.c.facts, literal(named, LargeBinary)) > 0
    query = select(table).where(table.c.number <= records, holds)
    return [_record(row) for row in _rows(connection, table, query)]


def _record(row: Row[Any]) -> AuditRecord:
    if not all(isinstance(getattr(row, name), type_) for name, type_ in _TYPES.items()):
        raise CarnetError(
            f"The accounts were changed at record {row.number}: a value there is of no kind that "
            f"was ever written; keep this database, and compare it with a backup."
        )
    return AuditRecord(row.number, row.at, row.event, _facts(row.facts))


def _facts(encoded: bytes) -> dict[str, Any]:
    try:
        facts = cbor.decode(encoded, len(encoded))
    except WireError:
        facts = None
    return facts if isinstance(facts, dict) and _is_named(facts) else {"unreadable": encoded}


def _is_named(value: object) -> bool:
    """Tell whether all keys of all maps in it are text, as those of facts are."""
    match value:
        case dict():
            return all(isinstance(key, str) and _is_named(each) for key, each in value.items())
        case list():
            return all(map(_is_named, value))
        case _:
            return True


@dataclass(frozen=True)
class ChainLink:
    """What the chain itself says of one record: whether it is what was written."""

    number: int
    digest: bytes
    holds: bool


def follow(connection: Connection, table: Table) -> Iterator[ChainLink]:
    """Yield the chain's links up to the first that does not hold, that one included.

    It does not hold where a record was changed, dropped or moved, or is there twice. A chain
    that was made anew from there on holds again: the signed heads tell (carnet.audit.heads).
    """
    previous, expected = START, 1
    for row in _rows(connection, table, select(table)):
        if row.number == expected - 1 > 0:
            yield ChainLink(row.number, row.digest, holds=False)
            return
        digest = _digest(previous, row.number, row.at, row.event, row.facts)
        holds = row.number == expected and row.digest == digest
        yield ChainLink(expected, row.digest, holds)
        if not holds:
            return
        previous, expected = row.digest, expected + 1
    if connection.scalar(select(func.count()).where(table.c.number.is_(None))):
        yield ChainLink(expected, b"", holds=False)


def _rows(
    connection: Connection,
    table: Table,
    query: Select[Any],
    let_go: Callable[[], None] = _nothing,
) -> Iterator[Row[Any]]:
    """Yield rows a page at a time; what is appended meanwhile comes at the end.

    A page begins with the number that the last one ended with, behind the rows that were
    there: where the table lost its primary key, there may be more of that number.
    """
    last, given = None, 0
    ordered = query.order_by(table.c.number)
    page = ordered
    while rows := _page(connection, page, last, _ROWS_AT_ONCE):
        let_go()
        yield from rows
        number = rows[-1].number
        same = sum(row.number == number for row in rows)
        last, given = number, same + (given if number == last else 0)
        page = ordered.where(table.c.number >= last).offset(given)
    # The last page, which is empty, began one more transaction.
    let_go()


def _page(
    connection: Connection, query: Select[Any], last: int | None, most: int
) -> Sequence[Row[Any]]:
    try:
        return connection.execute(query.limit(most)).all()
    except (TypeError, ValueError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and not is_no_text(error):
            raise
        if most > 1:
            # One after the other, to say which it is.
            return _page(connection, query, last, 1)
        raise CarnetError(
            f"The accounts were changed right after record {last or 0}: a value there is of no "
            f"kind that was ever written; keep this database, and compare it with a backup."
        ) from error


def _digest(previous: bytes, number: int, at: int, event: str, facts: bytes) -> bytes:
    return hashlib.sha256(cbor.encode([previous, number, at, event, facts])).digest()

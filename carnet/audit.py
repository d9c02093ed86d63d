"""The accounts: an append-only table, each record chained to the one before by hash.

Host and Target each keep one, in the database that holds what the records speak
of, so that a step and its record are one transaction (the paper's Table 4).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, Text, func, select

from carnet.database.sql import MOMENT, now
from carnet.wire import cbor

_START = bytes(32)


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


def append(connection: Connection, table: Table, event: str, **facts: Any) -> None:
    """Append a record in the caller's transaction; facts are plain values, never secrets.

    The transaction is one that may write (carnet.database): there is but one at a time,
    so that no two records follow the same one.
    """
    newest = select(func.max(table.c.number)).scalar_subquery()
    last = select(table.c.digest).where(table.c.number == newest).scalar_subquery()
    at, number, previous = connection.execute(select(now(), newest, last)).one()
    number, previous, encoded = (number or 0) + 1, previous or _START, cbor.encode(facts)
    connection.execute(
        table.insert().values(
            number=number,
            at=at,
            event=event,
            facts=encoded,
            digest=_digest(previous, number, at, event, encoded),
        )
    )


def read(connection: Connection, table: Table) -> Iterator[AuditRecord]:
    """Yield all records, oldest first."""
    for row in connection.execute(select(table).order_by(table.c.number)):
        facts = cast("dict[str, Any]", cbor.decode(row.facts, len(row.facts)))
        yield AuditRecord(row.number, row.at, row.event, facts)


def describe(record: AuditRecord) -> str:
    """Return a record as one line for a person."""
    when = datetime.fromtimestamp(record.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    facts = "  ".join(
        f"{name}={value.hex() if isinstance(value, bytes) else value}"
        for name, value in record.facts.items()
        if value is not None
    )
    return f"{record.number:6}  {when}Z  {record.event:16}  {facts}"


def find_break(connection: Connection, table: Table) -> int | None:
    """Return the number of the first record that was changed, dropped or moved; None if none.

    Records that were cut off at the end do not show, since nothing outside says how
    many there were.
    """
    previous = _START
    expected = 1
    for row in connection.execute(select(table).order_by(table.c.number)):
        digest = _digest(previous, row.number, row.at, row.event, row.facts)
        if row.number != expected or row.digest != digest:
            return expected
        previous, expected = row.digest, expected + 1
    return None


def _digest(previous: bytes, number: int, at: int, event: str, facts: bytes) -> bytes:
    return hashlib.sha256(cbor.encode([previous, number, at, event, facts])).digest()

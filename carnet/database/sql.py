"""The little SQL that SQLite and PostgreSQL write differently."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Index, Integer, Row, Select, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

READING = "carnet_reading"
"""The execution option of transactions that only read."""

BRIEF = "carnet_brief"
"""That of those in which nothing but statements is done."""

MOMENT = BigInteger().with_variant(Integer(), "sqlite")
"""A column of seconds since 1970, or another number that may pass 2^31."""

SQLITE_CLOCK = "carnet_now"


class now(FunctionElement[int]):  # noqa: N801  it reads as the SQL function that it is
    """The database's time when the statement arrives, in whole seconds since 1970, UTC.

    On PostgreSQL the server's, so that machines whose clocks differ agree; on SQLite
    that of the machine, which all processes share.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(now, "postgresql")
def _on_postgresql(_: now, __: SQLCompiler, **___: Any) -> str:
    # Not now(): that is the time at which the transaction began, before it had its lock.
    return "CAST(floor(extract(epoch FROM statement_timestamp())) AS bigint)"


@compiles(now, "sqlite")
def _on_sqlite(_: now, __: SQLCompiler, **___: Any) -> str:
    return f"{SQLITE_CLOCK}()"


class place_in(FunctionElement[int]):  # noqa: N801  it reads as the SQL function that it is
    """Where in bytes others begin, counted from 1; 0 where they are not in them."""

    type = Integer()
    inherit_cache = True


@compiles(place_in, "postgresql")
def _place_on_postgresql(element: place_in, compiler: SQLCompiler, **options: Any) -> str:
    whole, part = (compiler.process(each, **options) for each in element.clauses)
    return f"position({part} IN {whole})"


@compiles(place_in, "sqlite")
def _place_on_sqlite(element: place_in, compiler: SQLCompiler, **options: Any) -> str:
    return f"instr({compiler.process(element.clauses, **options)})"


def partial_index(name: str, column: Column[Any], condition: ColumnElement[bool]) -> Index:
    """Index a column of those rows alone that meet a condition."""
    return Index(name, column, sqlite_where=condition, postgresql_where=condition)


_PIECE = 500
"""Rows: as many as a connection takes though nobody reads, also one through a Unix socket."""


def in_pieces(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    """Yield rows that may be many to whoever holds the lock of those who write.

    A PostgreSQL server that sends more than the connection takes waits until it is read, and
    then no limit on who stands still in a transaction counts: that is for one that waits for a
    statement. So it sends no more at a time than it can be rid of.
    """
    yield from connection.execute(query, execution_options={"yield_per": _PIECE})


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an INSERT that takes `on_conflict_do_nothing` and `on_conflict_do_update`."""
    on_postgresql = connection.dialect.name == "postgresql"
    return postgresql.insert(table) if on_postgresql else sqlite.insert(table)

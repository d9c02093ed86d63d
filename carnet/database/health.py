"""Whether a database serves: by what became of statements, and by a look at it."""

import time
from collections.abc import Callable

from sqlalchemy import Engine, MetaData, event, select
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from carnet.database import check_writable, damage, for_reading, postgresql, reason_of, sqlite

DAMAGE_SECONDS = 60.0
"""For how long damage counts that PostgreSQL has told of: it is not asked for all of its pages."""


class DatabaseHealth:
    """That of one engine, from now on; from any thread.

    A file that was cut short takes a write, and shows the first rows of its tables, while
    requests fail over the rest. So damage that a statement met counts, until it is gone.
    """

    def __init__(self, engine: Engine, tables: MetaData, count: Callable[[], None]) -> None:
        """`count` is called for each statement or connection that fails, but for a refused row."""
        self._engine, self._tables, self._count = engine, tables, count
        self._met: tuple[float, str] | None = None
        event.listen(engine, "handle_error", self._failed)

    def _failed(self, context: ExceptionContext) -> None:
        if isinstance(context.sqlalchemy_exception, IntegrityError):
            return
        self._count()
        error = context.original_exception
        if sqlite.is_damage(error) or postgresql.is_damage(error):
            self._met = (time.monotonic(), reason_of(Exception(error)))

    def look(self) -> None:
        """Write, and read from each table; raises SQLAlchemyError where anything fails, or did."""
        check_writable(self._engine)
        with for_reading(self._engine).connect() as connection:
            for table in self._tables.sorted_tables:
                connection.execute(select(table).limit(1)).first()
        met = self._met
        if met is None:
            return
        if self._is_damaged(met[0]):
            raise SQLAlchemyError(met[1])
        if self._met is met:
            self._met = None

    def _is_damaged(self, met_at: float) -> bool:
        if self._engine.dialect.name == "sqlite":
            return damage(self._engine) is not None
        return time.monotonic() - met_at < DAMAGE_SECONDS

"""The database of Host or Target: durable before visible, on SQLite or on PostgreSQL.

Both behave alike. Whoever may write takes a lock first, so there is one writer at a
time, over all processes: a transaction sees all that was committed before it, none is
ever rolled back because of another, two never deadlock, and the accounts' chain
cannot fork. Whoever only reads waits for nobody.

What differs between the two is in the modules of this package, and nowhere else.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from carnet.database import postgresql, sqlite
from carnet.database.place import FilePlace, Place, PostgresPlace, SchemaError
from carnet.database.sql import BRIEF, READING
from carnet.database.suspension import held_back
from carnet.database.turns import turn
from carnet.errors import CarnetError, DatabaseAwayError, DatabaseError


@contextmanager
def opened_database(where: Path | Place, package: str, *, make: bool = True) -> Iterator[Engine]:
    """Open a database at its newest schema.

    A file is made, with mode 0600, where there is none and `make` says so. `package` holds
    the Alembic migrations, in its subpackage `migrations`. Raises DatabaseError where it is
    not there or cannot be made, is no database, or does not keep what it says is kept, and
    where it fails whoever uses it in here; DatabaseAwayError where it may not later.
    """
    place = FilePlace(where) if isinstance(where, Path) else where
    try:
        engine = _open(place, package, make=make)
    except (OSError, SchemaError, SQLAlchemyError) as error:
        raise _cannot(place, error) from error
    try:
        yield engine
    except CarnetError:
        raise
    except SQLAlchemyError as error:
        raise _cannot(place, error) from error
    finally:
        engine.dispose()


def _open(place: Place, package: str, *, make: bool) -> Engine:
    if isinstance(place, PostgresPlace):
        return _migrated(postgresql.open_engine(place), package)
    with held_back(), sqlite.opening(place):
        return _migrated(sqlite.open_engine(place, make=make), package)


def _migrated(engine: Engine, package: str) -> Engine:
    try:
        migrate(engine, package)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _cannot(place: Place, error: Exception) -> DatabaseError:
    cause, said = getattr(error, "orig", None), _said(place, error)
    away = isinstance(place, PostgresPlace) and postgresql.is_away(cause)
    return DatabaseAwayError(said) if away or _is_busy(cause) else DatabaseError(said)


def _is_busy(cause: BaseException | None) -> bool:
    return sqlite.is_busy(cause) or postgresql.is_busy(cause)


def _said(place: Place, error: Exception) -> str:
    if isinstance(error, SchemaError):
        return (
            f"The database {place} has a schema that this version of Carnet does not know "
            f"({error}), as a newer one makes it; install that version, or correct the "
            f"configuration, which names another's database."
        )
    if getattr(error, "errno", None) == errno.EROFS:
        return (
            f"The database {place} is on a file system that takes nothing, and who reads it writes "
            f"beside it: copy it and, where there is one, its -wal file into a directory of your "
            f"own, and name the copy as `database` in a copy of the configuration."
        )
    if _is_busy(getattr(error, "orig", None)):
        return (
            f"The database {place} is being written by another program, such as an import of many "
            f"pairs; wait until that is over, and try again."
        )
    return f"Cannot use the database {place}: {reason_of(error)}; {place.advice}."


def reason_of(error: Exception) -> str:
    """Return what the database or the system itself says: a line, without the statement."""
    reason = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
    return str(reason).partition("\n")[0]


def migrate(engine: Engine, package: str) -> None:
    """Bring the schema to its newest revision.

    Raises SchemaError if it is none of ours, SQLAlchemyError where the file is damaged.
    """
    newest: str = import_module(f"{package}.migrations").NEWEST
    if _revision(engine) != newest:
        # Alembic takes as long to load as all the rest of a command.
        from carnet.database.migration import upgrade  # noqa: PLC0415

        upgrade(engine, package)


def _revision(engine: Engine) -> str | None:
    try:
        with for_reading(engine).begin() as connection:
            found = connection.scalars(text("SELECT version_num FROM alembic_version")).first()
    except SQLAlchemyError as error:
        if sqlite.is_damage(getattr(error, "orig", None)):
            raise  # no new one, whose tables are yet to be made
        return None
    if found is None:
        # It is made with its row; of a file that was cut short SQLite may read nothing there.
        raise SQLAlchemyError("it does not say any more which version made it")
    return str(found)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give one transaction: all of it durable at the end, or nothing of it done.

    A command that is stopped meanwhile (Ctrl-Z) stands still after it.
    """
    with held_back(), turn(engine), engine.begin() as connection:
        yield connection


def check_writable(engine: Engine) -> None:
    """Commit a write that changes nothing; raises SQLAlchemyError where none can be."""
    with transaction(for_brief(engine)) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = version_num"))


@contextmanager
def alone(engine: Engine, word: str) -> Iterator[Callable[[], bool]]:
    """Be the only one, of all processes that use the database, who does what the word means.

    Gives what tells whether that is so, at the moment: a lock at PostgreSQL is lost with its
    connection. A process that ends has let go of it. The word has up to seven letters. Raises
    SQLAlchemyError, OSError.
    """
    if engine.dialect.name == "postgresql":
        with postgresql.alone(for_reading(engine), word) as is_alone:
            yield is_alone
    else:
        with sqlite.alone(engine, word) as taken:
            yield lambda: taken


def forget_deleted(engine: Engine) -> bool:
    """Have the database's own files keep nothing that was deleted; False if not just now.

    On PostgreSQL nothing can: what was deleted stays in its files and logs until they are
    written over.
    """
    return engine.dialect.name != "sqlite" or sqlite.empty_log(engine)


def damage(engine: Engine) -> str | None:
    """Return what the database finds wrong with its own pages, None where nothing is.

    Every page is read. PostgreSQL looks at each page as it reads it, and is not asked.
    """
    return sqlite.damage(for_reading(engine)) if engine.dialect.name == "sqlite" else None


def for_reading(engine: Engine) -> Engine:
    """Return the same database for single statements that only read and hold nobody up."""
    options: dict[str, Any] = {READING: True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "AUTOCOMMIT"
    return engine.execution_options(**options)


def for_brief(engine: Engine) -> Engine:
    """Return the same database for transactions in which nothing but statements is done.

    No token has a part in them, no file and no person: where such a process stands still,
    frozen or asleep, PostgreSQL lets others go on within seconds.
    """
    return engine.execution_options(**{BRIEF: True})


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Give a connection that reads what there is at one moment, and holds nobody up."""
    options: dict[str, Any] = {READING: True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    with engine.execution_options(**options).connect() as connection:
        yield connection

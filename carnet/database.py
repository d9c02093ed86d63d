"""The embedded database of Host and Target: SQLite, durable before visible."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from carnet.errors import UsageError
from carnet.files import private_directory, private_file

_BUSY_SECONDS = 30
_READING = "carnet_reading"


@contextmanager
def opened_database(path: Path, package: str) -> Iterator[Engine]:
    """Open the SQLite file, made with mode 0600 where there is none, at its newest schema.

    `package` holds the Alembic migrations, in its subpackage `migrations`. Raises
    UsageError where the file cannot be made or is no database, and where the database
    fails whoever uses it in here.
    """
    try:
        engine = _open(path, package)
    except (OSError, CommandError, SQLAlchemyError) as error:
        raise UsageError(_cannot(path, error)) from error
    try:
        yield engine
    except SQLAlchemyError as error:
        raise UsageError(_cannot(path, error)) from error
    finally:
        engine.dispose()


def _open(path: Path, package: str) -> Engine:
    private_directory(path.parent)
    private_file(path)
    # An error that reaches a log names the statement, never the values in it.
    engine = create_engine(
        f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    migrate(engine, package)
    return engine


def _cannot(path: Path, error: Exception) -> str:
    reason = getattr(error, "orig", None) or getattr(error, "strerror", None) or error
    return (
        f"Cannot use the database {path}: {str(reason).splitlines()[0]}; check the directory in "
        f"the configuration, or restore the file from a backup."
    )


def migrate(engine: Engine, package: str) -> None:
    """Bring the schema to its newest revision."""
    with resources.as_file(resources.files(package) / "migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Give one transaction: all of it durable at the end, or nothing of it done."""
    with engine.begin() as connection:
        yield connection


def for_reading(engine: Engine) -> Engine:
    """Return the same database for transactions that only read and hold nobody up."""
    return engine.execution_options(**{_READING: True})


def _on_connect(connection: Any, _: Any) -> None:
    # The driver's own idea of when to begin would let two readers both go on to write.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # Who may write takes the lock first: two that read and then write would deadlock.
    reading = connection.get_execution_options().get(_READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

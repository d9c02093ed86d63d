"""PostgreSQL: any number of processes on any number of machines.

Isolation is READ COMMITTED, under one lock that every writing transaction takes first:
each statement sees what was committed before it. A stricter level would take its
snapshot before the lock is had, and then fail for what others wrote meanwhile.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from carnet.database.place import PostgresPlace
from carnet.database.sql import BRIEF, READING
from carnet.database.turns import LOCK_SECONDS, TURNS
from carnet.files import read_private

_LOCK = int.from_bytes(b"carnet")
"""The advisory lock of whoever may write; locks of other databases do not matter."""

_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's manual, appendix A."""

_DAMAGED = ("XX001", "XX002")
"""Of a table or an index (the same appendix)."""

_READ_ONLY = "25006"
"""Of a write in a transaction that may only read (the same appendix)."""

_AWAY = ("08", "53300", "57P")
"""What codes begin with of connections that fail or are ended, of too many, and of a server that
begins or stops (the same appendix)."""

_WRITERS = 2
"""Threads of a process with a connection to write by: all may not be theirs, or who reads would
wait too. One writes, one is given the lock next by the server: each that waits there keeps others
waiting once more, if its process stands still."""

_LOCAL = ("", "localhost", "127.0.0.1", "::1")

_CONNECT = {
    "connect_timeout": 5,
    # A server that is cut off is noticed after seconds, not after TCP's quarter of an hour.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "carnet",
}

_SESSION = f"""
    SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', false),
           set_config('idle_in_transaction_session_timeout', '30s', false),
           set_config('tcp_keepalives_idle', '5', false),
           set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('tcp_user_timeout', '10s', false),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
               WHEN 'off' THEN 'on' WHEN 'local' THEN 'on'
               ELSE current_setting('synchronous_commit') END, false)
"""
"""Nobody waits, or keeps others waiting, for ever, a machine that died neither; a commit is on
disk before it is told.

Who stands still in a transaction is counted from an answer that was sent: carnet.database.sql's
in_pieces() has each be short enough. Over TCP one that is not taken ends the connection, too."""

_TRY = text("SELECT pg_try_advisory_lock(:number)")
_HELD = text("""
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() AND objsubid = 1
        AND (classid::bigint << 32) + objid::bigint = :number
""")
_LET_GO = text("SELECT pg_advisory_unlock(:number)")

_BRIEF = "6s"
"""For how long the server lets others wait for a process that stands still in a transaction in
which nothing but statements is done."""

_PROMISES = "SELECT current_setting('fsync'), pg_is_in_recovery()"


def open_engine(place: PostgresPlace) -> Engine:
    """Connect; raises OperationalError, UsageError where the password file is not private."""
    engine = create_engine(
        place.url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=connect_arguments(place),
        execution_options={TURNS: threading.Semaphore(_WRITERS)},
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    event.listen(engine, "handle_error", _on_error)
    return engine


def connect_arguments(place: PostgresPlace) -> dict[str, Any]:
    """Return what libpq is told besides the URL; raises UsageError.

    Over a network the server must prove who it is, unless the URL says otherwise.
    """
    arguments: dict[str, Any] = dict(_CONNECT)
    if place.password_file is not None:
        password = read_private(place.password_file, "the database's password")
        arguments["password"] = password.decode(errors="replace").rstrip("\r\n")
    host = str(place.url.host or place.url.query.get("host", ""))
    if not (host in _LOCAL or host.startswith("/") or "sslmode" in place.url.query):
        arguments["sslmode"] = "verify-full"
    return arguments


@contextmanager
def alone(engine: Engine, word: str) -> Iterator[Callable[[], bool]]:
    """Take a lock that is this connection's; gives what tells whether it is held, by asking.

    `engine` begins no transactions by itself. Raises SQLAlchemyError, as does what is given.
    """
    number = {"number": int.from_bytes(word.encode())}
    with engine.connect() as connection:
        connection.scalar(_TRY, number)
        try:
            yield lambda: bool(connection.scalar(_HELD, number))
        finally:
            try:
                connection.execute(_LET_GO, number)
            except SQLAlchemyError:
                connection.invalidate()


def is_busy(error: BaseException | None) -> bool:
    """Tell whether a statement failed because others held the lock for too long."""
    return getattr(error, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def is_damage(error: BaseException | None) -> bool:
    """Tell whether a statement failed because a page of the server's is damaged."""
    return getattr(error, "sqlstate", None) in _DAMAGED


def is_away(error: BaseException | None) -> bool:
    """Tell whether the server was not there, let nobody in, or went away meanwhile.

    With a wrong password it lets nobody in either: libpq tells no code of a connection that fails.
    """
    from psycopg import OperationalError as Failure  # noqa: PLC0415  who uses SQLite has no need

    code = getattr(error, "sqlstate", None)
    return isinstance(error, Failure) and (code is None or code.startswith(_AWAY))


def _on_connect(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SESSION)
        fsync, standby = cursor.execute(_PROMISES).fetchone()
    connection.commit()
    if standby:
        raise _refused("this server is a standby and takes no changes")
    if fsync != "on":
        raise _refused("this server runs with fsync=off and would forget spent key pairs")


def _on_error(context: ExceptionContext) -> None:
    """Have all connections made anew where one may only read: each keeps what it began with."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _refused(reason: str) -> OperationalError:
    return OperationalError(None, None, Exception(reason))


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(READING):
        return
    lock = f"SELECT pg_advisory_xact_lock({_LOCK})"
    if options.get(BRIEF):
        lock += f", set_config('idle_in_transaction_session_timeout', '{_BRIEF}', true)"
    connection.exec_driver_sql(lock)

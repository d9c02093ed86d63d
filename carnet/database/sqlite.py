"""SQLite: one file, any number of processes of one machine."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from carnet.database.place import FilePlace
from carnet.database.sql import READING, SQLITE_CLOCK
from carnet.database.sqlite_file import SqliteFile
from carnet.database.turns import LOCK_SECONDS, TURNS
from carnet.errors import DatabaseError as UnusableError
from carnet.files import private_directory, private_file

_OWN = 0o600
_LOOK_SECONDS = 0.001
"""Between two looks whether the lock is free: a transaction holds it for a few of these."""
_OTHERS = 0o077
_NOTHING = 1
"""Bytes: SQLite takes a file of one for an empty one."""
_IN_THE_WAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WHOLE = "ok"
_PRIMARY = 0xFF
"""The part of SQLite's error codes that the extended ones are refinements of."""
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "secure_delete=ON",
    # Else INSERT OR REPLACE deletes without the trigger that forbids it.
    "recursive_triggers=ON",
)


def opening(place: FilePlace) -> AbstractContextManager[object]:
    """Be the only process that opens the file, while it may be half made."""
    path = _true(place)
    private_directory(path.parent)
    return _lock(path, "lock")


def open_engine(place: FilePlace, *, make: bool = True) -> Engine:
    """Open the file, made with mode 0600 where there is none and `make` says so.

    Raises OSError, and carnet.errors.DatabaseError if others may read it, it lost its content, or
    it is gone.
    """
    path = _true(place)
    if path.exists():
        _check(path)
    else:
        _check_new(path, make=make)
    private_file(path)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": LOCK_SECONDS, "uri": True},
        hide_parameters=True,
        # SQLite has no queue: who finds its lock taken looks again and again, while others pass by.
        # So of each process one thread alone competes for it.
        execution_options={TURNS: threading.Lock()},
    )
    file = SqliteFile(place.path.absolute(), path)
    event.listen(engine, "do_connect", file.lead_there)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "connect", file.check_opened)
    event.listen(engine, "checkout", file.check_in_place)
    event.listen(engine, "begin", _on_begin)
    event.listen(engine, "begin", file.note_changes)
    event.listen(engine, "commit", file.count_change)
    event.listen(engine, "checkin", file.look)
    event.listen(engine, "close", file.keep_log_of_others)
    return engine


def empty_log(engine: Engine) -> bool:
    """Empty the write-ahead log into the file; False where somebody reads or writes just now.

    What is deleted is overwritten in the file (secure_delete), and stays in the log until
    then. Nobody is waited for, since whoever writes would wait too. Raises SQLAlchemyError
    where the file is damaged, or its disk takes nothing.
    """
    try:
        with closing(engine.raw_connection()) as connection:
            return not _checkpoint(connection.cursor())
    except sqlite3.Error as error:
        # The driver's own errors: nothing of SQLAlchemy stands between, as it does elsewhere.
        raise DatabaseError(None, None, error) from error


@contextmanager
def alone(engine: Engine, word: str) -> Iterator[bool]:
    """Take a lock beside the file; gives whether nobody had it. Raises OSError."""
    try:
        with _lock(Path(engine.url.database or ""), word, timeout=0):
            yield True
    except Timeout:
        yield False


def damage(engine: Engine) -> str | None:
    """Return half a sentence on the first page that is none; None where all are whole.

    Raises SQLAlchemyError where the file cannot be read.
    """
    try:
        with engine.connect() as connection:
            # Else it looks at what it remembers of them.
            connection.exec_driver_sql("PRAGMA shrink_memory")
            found: str = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    except DatabaseError as error:
        if not is_damage(error.orig):
            raise
        found = str(error.orig)
    return None if found == _WHOLE else " ".join(found.split())


def is_damage(error: BaseException | None) -> bool:
    """Tell whether a statement failed because the file is damaged, or no database."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY in _DAMAGED


def is_busy(error: BaseException | None) -> bool:
    """Tell whether a statement failed because others held the lock for too long."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _IN_THE_WAY


def _lock(path: Path, word: str, *, timeout: float = -1) -> FileLock:
    """Return a lock beside the file, its owner's too where root comes first; raises OSError."""
    beside = f"{path}.{word}"
    if os.geteuid() == 0 and path.exists():
        # As SQLite does with its own files. Not with one that is there, which may be anything.
        owner = path.stat()
        with suppress(FileExistsError):
            made = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OWN)
            with suppress(OSError):
                os.fchown(made, owner.st_uid, owner.st_gid)
            os.close(made)
    return FileLock(beside, timeout=timeout, mode=_OWN)


def _true(place: FilePlace) -> Path:
    """Return where the file itself is: there SQLite has its -wal, and not beside a link to it."""
    return Path(os.path.realpath(place.path))


def _checkpoint(cursor: Any) -> bool:
    """Return whether somebody was in the way; raises sqlite3.Error."""
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise
        return True
    finally:
        cursor.execute(f"PRAGMA busy_timeout={LOCK_SECONDS * 1000}")
    return bool(busy)


def _check(path: Path) -> None:
    """Refuse what cannot be this agent's database, before a new one is made in its place."""
    if path.stat().st_mode & _OTHERS:
        raise UnusableError(f"Others can read the database {path}; run `chmod 600 {path}`.")
    if path.stat().st_size <= _NOTHING:
        raise UnusableError(
            f"The database {path} is empty: restore it from a backup, or, if it never held "
            f"anything, remove the file."
        )


def _check_new(path: Path, *, make: bool) -> None:
    """Refuse to make a database where there was one, or where none is meant to be made."""
    log = Path(f"{path}-wal")
    if log.exists():
        raise UnusableError(
            f"The database {path} is gone, and its log {log} is there: put it back, or, if it is "
            f"to be made anew or restored from a backup, stop what uses it and remove {log} first."
        )
    if not make:
        raise UnusableError(
            f"There is no database {path}: put it back if it was moved away, or correct its place "
            f"in the configuration."
        )


def _on_connect(connection: Any, _: Any) -> None:
    # The driver's own idea of when to begin would let two readers both go on to write.
    connection.isolation_level = None
    connection.create_function(SQLITE_CLOCK, 0, lambda: int(time.time()))
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    # So that the connection has its log: in a new file the pragma makes none yet.
    cursor.execute("SELECT 1 FROM sqlite_master").fetchall()
    cursor.close()


def _on_begin(connection: Connection) -> None:
    if connection.get_execution_options().get(READING):
        connection.exec_driver_sql("BEGIN")
    else:
        _begin_writing(connection)


def _begin_writing(connection: Connection) -> None:
    """Take the lock before anything is read: two that read and then write would deadlock.

    SQLite itself would look for the lock less and less often, up to 100 ms apart, and whoever
    began to wait first would get it last.
    """
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        with suppress(sqlite3.Error):
            _when_free(cursor)
            return
        # As SQLAlchemy's error.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        cursor.execute(f"PRAGMA busy_timeout={LOCK_SECONDS * 1000}")
        cursor.close()


def _when_free(cursor: Any) -> None:
    """Begin as soon as nobody else writes; raises sqlite3.Error if that takes long, or fails."""
    looking = Retrying(
        stop=stop_after_delay(LOCK_SECONDS),
        wait=wait_fixed(_LOOK_SECONDS),
        retry=retry_if_exception(is_busy),
        reraise=True,
    )
    looking(cursor.execute, "BEGIN IMMEDIATE")

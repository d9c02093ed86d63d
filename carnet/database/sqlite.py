"""SQLite: one file, any number of processes of one machine."""

import fcntl
import os
import sqlite3
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DisconnectionError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from carnet.database.place import FilePlace
from carnet.database.sql import READING, SQLITE_CLOCK
from carnet.errors import UsageError
from carnet.files import private_directory, private_file

_BUSY_SECONDS = 30
_OTHERS = 0o077
_NOTHING = 1
"""Bytes: SQLite takes a file of one for an empty one."""
_IN_THE_WAY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WHOLE = "ok"
_MOVED = "the file was moved as it was opened"
_EXCHANGED = (
    "another file was in its place, which may have used up its -wal; see that the newest one is "
    "there, with its -wal, and start anew"
)
_LOGS = "carnet_logs"
"""What a connection has as the identities of its -wal and -shm."""
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
"""The bytes of the file that SQLite locks to close the last connection, and others to use it."""
_TURN = "carnet_turn"
"""The execution option with the lock of whoever writes in this process."""
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
    return FileLock(f"{path}.lock", mode=0o600)


def open_engine(place: FilePlace, *, make: bool = True) -> Engine:
    """Open the file, made with mode 0600 where there is none and `make` says so.

    Raises OSError, and UsageError if others may read it, it lost its content, or it is gone.
    """
    path = _true(place)
    if path.exists():
        _check(path)
    else:
        _check_new(path, make=make)
    private_file(path)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": _BUSY_SECONDS, "uri": True},
        hide_parameters=True,
        execution_options={_TURN: threading.Lock()},
    )
    file = _File(place.path.absolute(), path)
    event.listen(engine, "do_connect", file.lead_there)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "connect", file.check_not_moved)
    event.listen(engine, "checkout", file.check_in_place)
    event.listen(engine, "begin", _on_begin)
    return engine


@contextmanager
def turn(engine: Engine) -> Iterator[None]:
    """Wait until no other thread of this process writes, as long as SQLite itself would wait.

    SQLite has no queue: who finds its lock taken sleeps, for longer each time, while others
    pass by. So of each process one thread alone competes for it.
    """
    lock: threading.Lock = engine.get_execution_options()[_TURN]
    taken = lock.acquire(timeout=_BUSY_SECONDS)
    try:
        yield
    finally:
        if taken:
            lock.release()


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
        with FileLock(f"{engine.url.database}.{word}", timeout=0, mode=0o600):
            yield True
    except Timeout:
        yield False


def damage(engine: Engine) -> str | None:
    """Return half a sentence on the first page that is none; None where all are whole.

    Raises SQLAlchemyError where the file cannot be read.
    """
    try:
        with engine.connect() as connection:
            found: str = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    except DatabaseError as error:
        if getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY not in _DAMAGED:
            raise
        found = str(error.orig)
    return None if found == _WHOLE else " ".join(found.split())


def is_busy(error: BaseException | None) -> bool:
    """Tell whether a statement failed because others held the lock for too long."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY in _IN_THE_WAY


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
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
    return bool(busy)


def _check(path: Path) -> None:
    """Refuse what cannot be this agent's database, before a new one is made in its place."""
    if path.stat().st_mode & _OTHERS:
        raise UsageError(f"Others can read the database {path}; run `chmod 600 {path}`.")
    if path.stat().st_size <= _NOTHING:
        raise UsageError(
            f"The database {path} is empty: restore it from a backup, or, if it never held "
            f"anything, remove the file."
        )


def _check_new(path: Path, *, make: bool) -> None:
    """Refuse to make a database where there was one, or where none is meant to be made."""
    log = Path(f"{path}-wal")
    if log.exists():
        raise UsageError(
            f"The database {path} is gone, and its log {log} is there: put it back, or, if it is "
            f"to be made anew or restored from a backup, stop what uses it and remove {log} first."
        )
    if not make:
        raise UsageError(
            f"There is no database {path}: put it back if it was moved away, or correct its place "
            f"in the configuration."
        )


class _File:
    """The very file that an engine was opened with, and its place.

    No other is ever used there, an older one or a newer: SQLite would put it together with
    the -wal file of this one. Nor this one again once another was there, beside which
    somebody may have written to that -wal, or emptied it. Whoever opens it anew looks at
    all of it first.
    """

    def __init__(self, place: Path, path: Path) -> None:
        # By the place, a link to another file is another file there.
        self._place, self._path = place, path
        self._logs = (Path(f"{path}-wal"), Path(f"{path}-shm"))
        self._connected: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_log_kept = False
        # So long as it is held no other file gets its inode. By O_PATH: to close a real
        # descriptor would drop the locks that SQLite holds on the file.
        held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        weakref.finalize(self, os.close, held)
        self._identity = _identity(os.fstat(held))
        self._was_exchanged = False

    def lead_there(
        self, _: Dialect, __: ConnectionPoolEntry, arguments: list[Any], ___: object
    ) -> None:
        """Have a connection fail where the file was moved away, and not make another one."""
        arguments[0] = f"{self._path.as_uri()}?mode=rw"
        self._is_in_place()
        if self._was_exchanged:
            raise sqlite3.OperationalError(_EXCHANGED)

    def check_not_moved(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """Refuse a connection that may have opened another file.

        Raises OperationalError, and who wants a connection next gets a new one.
        """
        logs = self._find_logs()
        if not self._is_in_place() or None in logs or self._is_other_used(logs[1]):
            connection.close()
            raise OperationalError(None, None, sqlite3.OperationalError(_MOVED))
        entry.info[_LOGS] = logs
        with self._lock:
            self._connected.add(entry)

    def check_in_place(self, _: Any, entry: ConnectionPoolEntry, __: Any) -> None:
        """Have a connection made anew where the file, or one of its logs, is not in its place.

        What is written to it would be lost to whoever opens the place next. Nobody removes the
        log of a connection who knows of it. Raises DisconnectionError.
        """
        if not self._is_in_place():
            raise DisconnectionError
        logs = self._find_logs()
        if logs != entry.info[_LOGS]:
            # Where the -wal is gone too, closing brings what was in it into the file.
            if logs[0] is not None and logs[1] != entry.info[_LOGS][1]:
                self._keep_log()
            raise DisconnectionError

    def _find_logs(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_found(each) for each in self._logs)

    def _is_other_used(self, shm: tuple[int, int] | None) -> bool:
        """Tell whether a connection has another -shm: then any new one here shares that."""
        with self._lock:
            used = [each for each in self._connected if each.dbapi_connection is not None]
            return any(each.info.get(_LOGS, (None, shm))[1] != shm for each in used)

    def _keep_log(self) -> None:
        """Have SQLite leave the -wal there when it closes its last connection here.

        By a -shm that others do not have it would not know what they have written to it since.
        A lock of the descriptor's own is in its way, which it holds until the process ends: to
        close one drops all other locks of the process.
        """
        with self._lock:
            if self._is_log_kept:
                return
            shared = (fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
            try:
                descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", *shared))
            except OSError as error:
                raise OperationalError(None, None, error) from error
            self._is_log_kept = True

    def _is_in_place(self) -> bool:
        found = _found(self._place)
        if found is not None and found != self._identity:
            self._was_exchanged = True
        return found == self._identity and not self._was_exchanged


def _found(path: Path) -> tuple[int, int] | None:
    """Return the identity of what is there; None where nothing can be seen."""
    try:
        return _identity(path.stat())
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


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
    # Who may write takes the lock first: two that read and then write would deadlock.
    reading = connection.get_execution_options().get(READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

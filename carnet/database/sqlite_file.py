"""The very file of a SQLite database, and its place: looked at whenever a connection is used.

SQLite finds its log by name, and takes nobody but itself for a writer of the file. What it
would put together from two states is found out here, and nothing is done with it.
"""

import fcntl
import os
import sqlite3
import struct
import threading
import weakref
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DisconnectionError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from carnet.database.sql import READING

_MOVED = "the file was moved away"
_EXCHANGED = (
    "another file was in its place, which may have used up its -wal; see that the newest one is "
    "there, with its -wal, and start anew"
)
_OVERWRITTEN = (
    "the file was overwritten while it was in use, as by a backup that was copied onto it; stop "
    "what uses it, and restore all of it"
)
_NO_LOG = "its -wal or -shm was removed"
_OTHER_SHM = "its -shm was removed, and connections that still have that one are closed first"
_LOGS = "carnet_logs"
"""What a connection has as the identities of its -wal and -shm."""
_CHANGES = "carnet_changes"
"""How many changes a connection had made when its transaction began."""
_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
"""The bytes of the file that SQLite locks to close the last connection, and others to use it."""
_COUNT_AT, _COUNT_SIZE = 60, 4
"""Where the header has the user version (SQLite's file format, 1.3)."""
_COUNTS = 2**31
"""After so many it begins anew; what is less than half of it ahead is newer."""

_Identity = tuple[int, int]


class SqliteFile:
    """The very file that an engine was opened with, and its place.

    No other is ever used there, an older one or a newer: SQLite would put it together with
    the -wal file of this one. Nor this one again once another was there, beside which
    somebody may have written to that -wal, or emptied it. Nor once it was overwritten: the
    newest pages would come from the -wal, and the others from what was copied. Whoever opens
    it anew looks at all of it first.

    That it was overwritten shows by its count of transactions, in its header. Only SQLite brings
    that from the -wal into the file, where it never falls.
    """

    def __init__(self, place: Path, path: Path) -> None:
        # By the place, a link to another file is another file there.
        self._place, self._path = place, path
        self._logs = (Path(f"{path}-wal"), Path(f"{path}-shm"))
        self._connected: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._held = _hold(path)
        self._count = self._held.count()
        self._refusal: str | None = None

    def lead_there(
        self, _: Dialect, __: ConnectionPoolEntry, arguments: list[Any], ___: object
    ) -> None:
        """Have a connection fail where the file was moved away, and not make another one."""
        arguments[0] = f"{self._path.as_uri()}?mode=rw"
        if not self._is_as_it_was() and self._refusal is not None:
            raise sqlite3.OperationalError(self._refusal)

    def check_opened(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        """Refuse a connection that may have opened another file, or another -shm than others.

        Raises OperationalError, and who wants a connection next gets a new one.
        """
        logs = self._find_logs()
        reason = self._why_not(logs)
        if reason is not None:
            connection.close()
            raise _failed(reason)
        entry.info[_LOGS] = logs
        with self._lock:
            self._connected.add(entry)

    def check_in_place(self, _: Any, entry: ConnectionPoolEntry, __: Any) -> None:
        """Have a connection made anew where the file, or one of its logs, is not what it was.

        What is written to it would be lost to whoever opens the place next. Raises
        DisconnectionError.
        """
        if not self._is_as_it_was() or self._find_logs() != entry.info[_LOGS]:
            raise DisconnectionError

    def look(self, *_: object) -> None:
        """Look at the file, since the log may just have been brought into it."""
        self._is_as_it_was()

    def keep_log_of_others(self, _: Any, entry: ConnectionPoolEntry) -> None:
        """Have SQLite leave the -wal there at the last close where the -shm is another by now.

        By the -shm that others do not have it would not know what they have written to it since.
        Where the -wal is gone too, closing brings what was in it into the file. Nobody removes
        the log of a connection who knows of it.
        """
        log, shm = self._find_logs()
        if log is not None and shm != entry.info.get(_LOGS, (log, shm))[1]:
            self._held.keep_log()

    def note_changes(self, connection: Connection) -> None:
        """Note how much its connection has changed before a transaction."""
        connection.info[_CHANGES] = _driver_of(connection).total_changes

    def count_change(self, connection: Connection) -> None:
        """Count a transaction that changed something, before it is committed.

        Raises OperationalError where the file, or one of its logs, is no more what it was.
        """
        if connection.get_execution_options().get(READING):
            return
        driver = _driver_of(connection)
        if driver.total_changes == connection.info[_CHANGES]:
            return
        if not self._is_as_it_was():
            raise _failed(self._refusal or _MOVED)
        if self._find_logs() != connection.info[_LOGS]:
            raise _failed(_NO_LOG)
        try:
            (last,) = driver.execute("PRAGMA user_version").fetchone()
            driver.execute(f"PRAGMA user_version={(last + 1) % _COUNTS}")
        except sqlite3.Error as error:
            raise OperationalError(None, None, error) from error

    def _why_not(self, logs: tuple[_Identity | None, ...]) -> str | None:
        if not self._is_as_it_was():
            return self._refusal or _MOVED
        if None in logs:
            return _NO_LOG
        return _OTHER_SHM if self._is_other_used(logs[1]) else None

    def _find_logs(self) -> tuple[_Identity | None, ...]:
        return tuple(_found(each) for each in self._logs)

    def _is_other_used(self, shm: _Identity | None) -> bool:
        """Tell whether a connection has another -shm: then any new one here shares that."""
        with self._lock:
            used = [each for each in self._connected if each.dbapi_connection is not None]
            return any(each.info.get(_LOGS, (None, shm))[1] != shm for each in used)

    def _is_as_it_was(self) -> bool:
        """Tell whether it is in its place and nobody has put older pages into it."""
        with self._lock:
            found = _found(self._place)
            if self._refusal is None:
                self._refusal = self._refused(found)
            return found is not None and self._refusal is None

    def _refused(self, found: _Identity | None) -> str | None:
        if found is not None and found != self._held.identity:
            return _EXCHANGED
        count = self._held.count()
        if (count - self._count) % _COUNTS >= _COUNTS // 2:
            return _OVERWRITTEN
        self._count = count
        return None


class _Held:
    """A file that is held open, so that no other gets its inode, and it can be looked into."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # At the end of the program SQLite may still have locks on it.
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        self.identity = _identity(os.fstat(self._descriptor))

    def count(self) -> int:
        """Return the count in the file itself, whatever the log has; 0 where there is none."""
        return int.from_bytes(os.pread(self._descriptor, _COUNT_SIZE, _COUNT_AT))

    def keep_log(self) -> None:
        """Have SQLite not remove the -wal, by a lock in its way that goes with the descriptor."""
        shared = (fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", *shared))
        except OSError as error:
            raise OperationalError(None, None, error) from error


_HELD: weakref.WeakValueDictionary[_Identity, _Held] = weakref.WeakValueDictionary()
_HOLDING = threading.Lock()


def _hold(path: Path) -> _Held:
    """Hold a file, by one descriptor for all engines of the process; raises OSError.

    To close one of several would drop all locks that SQLite has on the file.
    """
    with _HOLDING:
        held = _HELD.get(_identity(path.stat())) or _Held(path)
        _HELD[held.identity] = held
        return held


def _found(path: Path) -> _Identity | None:
    """Return the identity of what is there; None where nothing can be seen."""
    try:
        return _identity(path.stat())
    except OSError:
        return None


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _driver_of(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _failed(reason: str) -> OperationalError:
    return OperationalError(None, None, sqlite3.OperationalError(reason))

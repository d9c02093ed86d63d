"""SQLite: one file, any number of processes of one machine."""

import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from carnet.database.place import FilePlace
from carnet.database.sql import READING, SQLITE_CLOCK
from carnet.files import private_directory, private_file

_BUSY_SECONDS = 30


def open_engine(place: FilePlace) -> Engine:
    """Open the file, made with mode 0600 where there is none; raises OSError."""
    private_directory(place.path.parent)
    private_file(place.path)
    engine = create_engine(f"sqlite:///{place.path}", connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _: Any) -> None:
    # The driver's own idea of when to begin would let two readers both go on to write.
    connection.isolation_level = None
    connection.create_function(SQLITE_CLOCK, 0, lambda: int(time.time()))
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    # Who may write takes the lock first: two that read and then write would deadlock.
    reading = connection.get_execution_options().get(READING)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

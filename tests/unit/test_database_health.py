"""What tells whether a database serves, on real files; PostgreSQL's codes as it sends them."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError, SQLAlchemyError

from carnet.database import health, opened_database
from carnet.database.health import DatabaseHealth
from target_agent.schema import members, metadata, tunnels

PAGE = 4096
MANY = 200
TABLE_LEAF = 0x0D
"""What the page of a table's rows begins with (SQLite's file format, 1.6)."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "target.sqlite"


@contextmanager
def opened(path):
    """Give an engine, its health, and what that counted."""
    counted = []
    with opened_database(path, "target_agent") as engine:
        yield engine, DatabaseHealth(engine, metadata, lambda: counted.append(1)), counted


def fill(path):
    """Have more members than fit on one page; return where the page of the last is."""
    with opened_database(path, "target_agent") as engine, engine.begin() as connection:
        rows = [{"user_id": f"{number}@{'x' * 90}", "since": 0} for number in range(MANY)]
        connection.execute(members.insert(), rows)
    data = path.read_bytes()
    pages = range(0, len(data), PAGE)
    return next(
        at
        for at in pages
        if data[at] == TABLE_LEAF and f"{MANY - 1}@x".encode() in data[at : at + PAGE]
    )


def overwrite(path, at, what):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)


def test_a_database_that_serves_is_well_and_a_refused_row_is_no_failure(path):
    with opened(path) as (engine, seen, counted):
        for _ in range(2):
            with pytest.raises(IntegrityError), engine.begin() as connection:
                connection.execute(members.insert(), [{"user_id": "a@b", "since": 0}] * 2)
        seen.look()
        assert counted == []


def test_damage_that_a_statement_met_counts_until_it_is_gone(path):
    """The first rows of each table are whole, and a write is taken."""
    last = fill(path)
    whole = path.read_bytes()[last : last + PAGE]
    with opened(path) as (engine, seen, counted):
        overwrite(path, last, bytes(PAGE))
        seen.look()
        with pytest.raises(DatabaseError), engine.connect() as connection:
            connection.execute(select(members)).all()
        assert len(counted) == 1
        for _ in range(2):
            with pytest.raises(SQLAlchemyError, match="malformed"):
                seen.look()
        overwrite(path, last, whole)
        seen.look()


def test_a_table_that_cannot_be_read_is_no_health(path):
    with opened(path) as (engine, seen, _):
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE {tunnels.name}"))
        with pytest.raises(OperationalError, match="no such table"):
            seen.look()


def test_a_file_that_is_gone_is_counted(path):
    with opened(path) as (_, seen, counted):
        path.rename(path.with_suffix(".away"))
        for _ in range(2):
            with pytest.raises(SQLAlchemyError):
                seen.look()
        assert counted


@pytest.mark.parametrize(("code", "damaged"), [("XX001", True), ("XX002", True), ("57P01", False)])
def test_damage_of_which_postgresql_tells_counts_for_a_while(path, monkeypatch, code, damaged):
    error = Exception("invalid page in block 7 of relation base/1/2\nmore")
    error.sqlstate = code
    now = [0.0]
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with opened(path) as (engine, seen, _):
        monkeypatch.setattr(engine.dialect, "name", "postgresql")
        monkeypatch.setattr(health, "check_writable", lambda _: None)
        monkeypatch.setattr(health, "for_reading", lambda engine: engine)
        seen._failed(SimpleNamespace(sqlalchemy_exception=None, original_exception=error))
        if damaged:
            with pytest.raises(SQLAlchemyError, match=r"^invalid page in block 7 of \S+ \S+$"):
                seen.look()
        now[0] = health.DAMAGE_SECONDS
        seen.look()

"""A Key Database of the test's own, on SQLite and on PostgreSQL, with two pairs of alice in it."""

import functools
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from carnet.database.place import FilePlace, PostgresPlace
from carnet.wire.envelope import open_request, parse_envelope, seal_request
from carnet.wire.keys import key_id_of
from carnet.wire.suites import P256
from host_agent.keydb import KeyDatabase, NewPair
from tests.host.real_host import RealHost, new_module
from tests.token.conftest import directory, make_token, module, pairing  # noqa: F401
from tests.unit.examples import SoftwareKey, make_request

MOVED_CLOCK = """
    CREATE SCHEMA moved;
    CREATE TABLE moved.shift (seconds float8 NOT NULL);
    INSERT INTO moved.shift VALUES (0);
    CREATE FUNCTION moved.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS
        'SELECT pg_catalog.statement_timestamp() + make_interval(secs => seconds)
         FROM moved.shift';
"""
"""The database's clock, which a test may move, where it is found before PostgreSQL's own."""

CONFIGURATION = """
name = "office"
listen = "127.0.0.1"
port = 8470
officer = "officer.crt"
{database}
[link]
certificate = "link.crt"
key = "link.key"
authority = "officer.crt"
[targets.work]
url = "https://127.0.0.1:8471"
"""
"""Of a Host that serves nobody here: its commands alone read it."""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, tmp_path):
    """Where a Key Database of the test's own shall be, or is, without anything in it."""
    is_made = "database" in request.fixturenames
    if request.param == "sqlite":
        made = FilePlace(tmp_path / "keys.sqlite")
        if is_made:
            shutil.copy(request.getfixturevalue("empty_file"), made.path)
        yield made
        return
    server = request.getfixturevalue("postgresql")
    like = request.getfixturevalue("empty_database" if is_made else "moved_clock")
    with server.database(like) as name:
        find_moved_clock(server, name)
        yield postgres_place(server, name)


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory):
    """A Key Database for copies: to make one anew takes longer."""
    path = tmp_path_factory.mktemp("empty") / "keys.sqlite"
    with KeyDatabase.opened(FilePlace(path)):
        return path


@pytest.fixture(scope="session")
def moved_clock(postgresql):
    """A database that has the clock and nothing else, likewise."""
    with postgresql.database() as name:
        postgresql.execute(MOVED_CLOCK, name)
        yield name


@pytest.fixture(scope="session")
def empty_database(postgresql, moved_clock):
    """A Key Database, likewise."""
    with postgresql.database(moved_clock) as name:
        find_moved_clock(postgresql, name)
        with KeyDatabase.opened(postgres_place(postgresql, name)):
            pass
        yield name


def find_moved_clock(server, name):
    """Have a database's own clock found first; that is no part of what it is made like."""
    server.execute(f"ALTER DATABASE {name} SET search_path = public, moved, pg_catalog")


def postgres_place(server, name):
    return replace(PostgresPlace.parse(server.url(name)), password_file=server.password_file)


@pytest.fixture
def database(place):
    with KeyDatabase.opened(place) as opened:
        yield opened


@pytest.fixture
def other_process(place, database):
    """The same Key Database, as another process of the Host has it open."""
    with KeyDatabase.opened(place) as opened:
        yield opened


def new_pair(key, **changes):
    fields = {
        "key_id": key_id_of(key.public_key),
        "user_id": "alice@office",
        "token_serial": "1",
        "batch_id": bytes(16),
        "label": "carnet 20261123T000000Z 0001",
        "custody": "paired",
        "suite": 1,
        "public_key": key.public_key,
        "not_after": None,
    }
    return NewPair(**(fields | changes))


@pytest.fixture
def pair(database):
    key = SoftwareKey()
    database.add_pairs([new_pair(key)])
    return key


@pytest.fixture
def other_pair(database):
    key = SoftwareKey()
    database.add_pairs([new_pair(key, label="carnet 20261123T000000Z 0002")])
    return key


def sealed_request(key, **changes) -> tuple:
    """A request under a pair: its envelope, and what it opens to."""
    data = seal_request(make_request(**changes), key.public_key, P256, key)
    envelope = parse_envelope(data)
    return envelope, open_request(envelope, key.public_key, key)


class Clock:
    """The machine's clock."""

    def __init__(self, monkeypatch):
        self.now = time.time()
        monkeypatch.setattr(time, "time", lambda: self.now)

    def move(self, seconds):
        self.now += seconds


class ServersClock:
    """The server's clock; that of the machine stays what it is."""

    def __init__(self, engine):
        self._engine = engine
        self.now = time.time()

    def move(self, seconds):
        self.now += seconds
        with self._engine.begin() as connection:
            connection.execute(
                text("UPDATE moved.shift SET seconds = seconds + :n"), {"n": seconds}
            )


@pytest.fixture
def clock(place, database, monkeypatch):
    """The clock that decides, which the test moves."""
    if isinstance(place, FilePlace):
        return Clock(monkeypatch)
    return ServersClock(database._engine)


@pytest.fixture
def make_host(monkeypatch):
    """Make a Host with an HSM token: make_host(limits, rule=…); at most one a test."""
    with tempfile.TemporaryDirectory(prefix="carnet-host-") as name:
        directory = Path(name)
        yield functools.partial(RealHost, directory, new_module(directory, monkeypatch))

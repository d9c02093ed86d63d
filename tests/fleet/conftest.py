"""A Host of several processes: one token, one Key Database, on SQLite and on PostgreSQL."""

import os
import tempfile
from pathlib import Path

import pytest

from carnet.database.place import FilePlace
from host_agent.keydb import KeyDatabase
from tests.fleet.fleet import Fleet
from tests.fleet.gateway import Gateway
from tests.fleet.hsm import PIN, SoftToken
from tests.host.booklets import HostToken
from tests.host.conftest import postgres_place
from tests.target.certificates import Authority
from tests.unit.examples import SoftwareKey

MEMORY = "/dev/shm"  # noqa: S108  a directory of the test's own is made in it
IN_FULL = "CARNET_SOAK" in os.environ


def how_many(in_full, short):
    return in_full if IN_FULL else short


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="carnet-fleet-") as name:
        yield Path(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request, directory):
    if request.param == "sqlite":
        yield FilePlace(directory / "keys.sqlite")
        return
    server = request.getfixturevalue("postgresql")
    with server.database() as name:
        yield postgres_place(server, name)


@pytest.fixture
def token(monkeypatch):
    """The Host's token; in memory where that can be, for a thousand keys take minutes on a disk."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="carnet-fleet-", dir=where) as name:
        yield SoftToken(Path(name) / "softhsm", monkeypatch)


@pytest.fixture
def fleet(directory, place, token):
    authority = Authority(directory)
    with (
        Gateway(directory, authority) as gateway,
        Fleet(directory, place, authority, token, gateway) as made,
    ):
        yield made


@pytest.fixture
def keys(fleet):
    """Return so many new pairs of alice, half in software here and half on the Host's token."""

    def make(count):
        made = [SoftwareKey() for _ in range(count)]
        fleet.import_keys(made)
        return made

    return make


@pytest.fixture
def hsm(token):
    return HostToken(token._module, "hsm", PIN)


@pytest.fixture
def take_in(fleet, hsm):
    """Mint so many pairs for the Host's token and import them; return the booklet."""

    def do(count):
        booklet = hsm.booklet(count)
        with KeyDatabase.opened(fleet.place) as database:
            assert hsm.take_in(booklet.batch, database) == count
        return booklet

    return do

"""A Key Database in a file of the test's own, with two pairs of alice in it."""

import time

import pytest

from carnet.wire.envelope import open_request, parse_envelope, seal_request
from carnet.wire.keys import key_id_of
from carnet.wire.suites import P256
from host_agent.keydb import KeyDatabase, NewPair
from tests.unit.examples import SoftwareKey, make_request


@pytest.fixture
def database(tmp_path):
    with KeyDatabase.opened(tmp_path / "keys.sqlite") as opened:
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
    database.add_pair(new_pair(key))
    return key


@pytest.fixture
def other_pair(database):
    key = SoftwareKey()
    database.add_pair(new_pair(key, label="carnet 20261123T000000Z 0002"))
    return key


def sealed_request(key) -> tuple:
    """A request under a pair: its envelope, and what it opens to."""
    data = seal_request(make_request(), key.public_key, P256, key)
    envelope = parse_envelope(data)
    return envelope, open_request(envelope, key.public_key, key)


@pytest.fixture
def clock(monkeypatch):
    """A wall clock that the test moves."""

    class Clock:
        now = time.time()

        def move(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock

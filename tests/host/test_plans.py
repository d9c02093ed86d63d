"""What a request costs with many pairs: every statement of it finds its rows by an index.

Many are 20,000 here, from where on PostgreSQL takes no look at all rows, and 100,000 under
`make soak`.
"""

import hashlib
import os
import secrets

import pytest
from sqlalchemy import event, insert

from carnet.database.place import FilePlace
from carnet.wire.control import TunnelEnded
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.keydb import KeyDatabase, KeyStoreName, WrappedKey
from tests.host.conftest import new_pair, postgres_place, sealed_request
from tests.unit.examples import SoftwareKey

USERS = 2_000
PAIRS = USERS * (50 if "CARNET_SOAK" in os.environ else 10)
SPENT = PAIRS // 2


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request, tmp_path_factory):
    if request.param == "sqlite":
        yield FilePlace(tmp_path_factory.mktemp("plans") / "keys.sqlite")
        return
    server = request.getfixturevalue("postgresql")
    with server.database() as name:
        yield postgres_place(server, name)


def digest(number):
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def a_pair(number):
    user = number % USERS
    return {
        "key_id": digest(number)[:16],
        "user_id": f"user{user}@office",
        "token_serial": f"{user:016}",
        "batch_id": bytes(16),
        "label": f"carnet 20261123T000000Z {number // USERS:04}",
        "custody": "paired",
        "suite": 1,
        "public_key": bytes(91),
        "state": "invalid" if number < SPENT else "valid",
        "reason": "spent" if number < SPENT else None,
        "not_after": 2_000_000_000,
        "imported_at": 1_700_000_000,
        "invalid_at": 1_700_000_000 + number if number < SPENT else None,
        "key_destroyed_at": 1_700_000_000 if number < SPENT else None,
    }


def a_wrapped_key(number):
    return {"key_id": digest(number)[:16], "kek_id": kek_id(number % USERS), "wrapped": bytes(152)}


def kek_id(user):
    return user.to_bytes(16, "big")


def a_batch_key(user):
    return {
        "kek_id": kek_id(user),
        "token_serial": "hsm",
        "batch_id": kek_id(user),
        "imported_at": 1_700_000_000,
    }


def a_copy(number):
    destroyed = 1_700_000_000 if number < SPENT else None
    return {"key_id": digest(number)[:16], "hsm_serial": "1", "destroyed_at": destroyed}


def a_request(number):
    return {
        "key_id": digest(number)[:16],
        "digest": digest(number),
        "request_id": digest(number)[16:],
        "target": "work",
        "objective_id": 3,
        "evidence": bytes(64),
        "spent_at": 1_700_000_000,
        "outcome": "granted",
        "answered_at": 1_700_000_000,
    }


def early(number):
    """One that no import brings."""
    never = digest(PAIRS + number)[:16]
    return {"key_id": never, "revoked_at": 1_700_000_000, "reason": "lost", "why": "a test"}


def a_record(number):
    return {
        "number": number + 1,
        "at": 1_700_000_000,
        "event": "spent",
        "facts": b"\xa0",
        "digest": digest(number),
    }


@pytest.fixture(scope="module")
def database(place):
    """2,000 travellers with 10 or 50 pairs each, half of them spent."""
    with KeyDatabase.opened(place) as opened:
        with opened._engine.begin() as connection:
            connection.execute(insert(schema.key_pairs), [a_pair(n) for n in range(PAIRS)])
            connection.execute(insert(schema.key_copies), [a_copy(n) for n in range(PAIRS)])
            connection.execute(insert(schema.requests), [a_request(n) for n in range(SPENT)])
            connection.execute(insert(schema.audit), [a_record(n) for n in range(PAIRS)])
            connection.execute(insert(schema.revoked_early), [early(n) for n in range(PAIRS)])
            valid = range(SPENT, PAIRS)
            connection.execute(insert(schema.wrapped_keys), [a_wrapped_key(n) for n in valid])
            connection.execute(insert(schema.batch_keys), [a_batch_key(n) for n in range(USERS)])
        if not isinstance(place, FilePlace):
            # PostgreSQL does that by itself before long; SQLite never does.
            with opened._engine.begin() as connection:
                connection.exec_driver_sql("ANALYZE")
        yield opened


class Listener:
    """Every statement that goes to the database, with its parameters."""

    def __init__(self, engine):
        self._engine = engine
        self._heard = {}
        event.listen(engine, "before_cursor_execute", self._hear)

    def _hear(self, _connection, _cursor, statement, parameters, *_):
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            self._heard.setdefault(statement, parameters)

    def plans(self):
        """Ask the database how it goes about each statement."""
        event.remove(self._engine, "before_cursor_execute", self._hear)
        sqlite = self._engine.dialect.name == "sqlite"
        how = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
        with self._engine.begin() as connection:
            for statement, parameters in self._heard.items():
                rows = connection.exec_driver_sql(how + statement, parameters)
                yield statement, "\n".join(str(row[-1]) for row in rows)


@pytest.fixture
def listener(database):
    return Listener(database._engine)


PARTIAL = (
    "requests_unanswered",
    "responses_kept",
    "tunnels_to_end",
    "keys_to_destroy",
    "batch_keys_kept",
)
"""Indexes that hold only what there is to do, so that to read all of one is no scan."""


def is_scan(line):
    if "Seq Scan" in line:
        return True
    harmless = line == "SCAN CONSTANT ROW" or line.endswith(PARTIAL)
    return line.startswith("SCAN") and not harmless


def scans(plans):
    """The statements that look at every row of a table."""
    return [each for each in plans if any(map(is_scan, each[1].splitlines()))]


def test_no_statement_on_the_way_of_a_request_scans_a_table(database, listener):
    key = SoftwareKey()
    user = {"user_id": "user7@office", "token_serial": f"{7:016}"}
    database.add_pairs([new_pair(key, not_after=2_000_000_000, **user)])
    key_id = key_id_of(key.public_key)
    pair = database.find_pair(key_id)
    assert database.find_request(key_id) is None
    envelope, signed = sealed_request(key)
    assert database.spend(envelope, signed)
    assert database.take_lease(key_id)
    database.renew_leases([key_id, secrets.token_bytes(16)])
    assert len(database.invalid_pairs(pair)) == PAIRS // USERS // 2
    assert database.store_response(key_id, "granted", b"answer") == b"answer"
    assert database.store_response(key_id, "granted", b"another") == b"answer"
    database.record_destroyed(key_id, "1")
    database.let_go(key_id)
    plans = list(listener.plans())
    assert len(plans) > 10
    assert scans(plans) == []


def test_no_statement_that_is_asked_again_and_again_scans_a_table(database, listener):
    key = SoftwareKey()
    database.add_pairs([new_pair(key)])
    envelope, signed = sealed_request(key)
    database.spend(envelope, signed)
    assert database.unanswered() == database.abandoned() == []
    assert database.keys_to_destroy("1") == database.keys_to_destroy() == []
    database.drop_old_responses()
    assert database.expire() == []
    database.store_response(envelope.key_id, "granted", b"answer")
    assert database.revoke_tunnels("a test", key_id=envelope.key_id) == 1
    (request_id,) = database.tunnels_to_end("work")
    database.record_end_asked("work", request_id)
    ended = TunnelEnded(number=1, request_id=request_id, reason="revoked", ended_at=5)
    database.record_ended("work", (ended,))
    database.place("work")
    plans = [each for each in listener.plans() if "cursors" not in each[0]]
    assert len(plans) > 10
    assert scans(plans) == []


def test_no_statement_of_a_wrapped_key_scans_a_table(database, listener):
    key, kek = SoftwareKey(), kek_id(7)
    pair = new_pair(key, key_store=KeyStoreName.WRAPPED)
    assert database.begin_batch_key(kek, kek, "hsm")
    assert database.add_wrapped_pairs([(pair, WrappedKey(kek, bytes(152)))]) == 1
    database.finish_batch_key(kek)
    assert database.needs_batch_key(kek)
    assert database.pairs_for_batch_key(kek, [pair.key_id]) == set()
    assert database.wrapped_keys(pair.key_id) == [WrappedKey(kek, bytes(152))]
    assert database.burn_wrapped(pair.key_id) == [kek]
    assert not database.may_hold("1", pair.key_id)
    assert database.batch_keys_over([kek]) == []
    database.record_batch_key_destroyed(kek, "elsewhere")
    plans = list(listener.plans())
    assert len(plans) > 10
    assert scans(plans) == []

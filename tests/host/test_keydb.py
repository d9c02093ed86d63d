"""The Key Database: one pair, one request, and a record of everything."""

import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from secrets import token_bytes
from threading import Barrier

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event

from carnet import audit
from carnet.audit.chain import follow
from carnet.database import postgresql, sqlite
from carnet.errors import UnreachableError, UsageError
from carnet.wire.control import TunnelEnded
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.importing import alone
from host_agent.keydb import (
    ANSWER_KEPT,
    LEASE_SECONDS,
    KeyDatabase,
    ListPlace,
    PairState,
    pairs,
)
from lab.waiting import wait_until
from tests.host.conftest import new_pair, sealed_request
from tests.unit.examples import SoftwareKey


def events(database):
    with database.begin() as connection:
        return [record.event for record in audit.read(connection, schema.audit)]


def key_of(pair):
    return key_id_of(pair.public_key)


def test_a_pair_is_spent_by_one_request_and_no_other(database, pair):
    first, second = sealed_request(pair), sealed_request(pair)
    assert database.spend(*first)
    assert not database.spend(*second)
    assert database.find_pair(key_of(pair)).state is PairState.INVALID
    assert database.find_request(key_of(pair)).digest == first[0].digest
    assert events(database) == ["imported", "spent"]


def test_of_many_at_once_one_wins(database, pair):
    requests = [sealed_request(pair) for _ in range(16)]
    start = Barrier(len(requests))

    def spend(request):
        start.wait()
        return database.spend(*request)

    with ThreadPoolExecutor(len(requests)) as threads:
        won = list(threads.map(spend, requests))
    assert sum(won) == 1
    winner = requests[won.index(True)][0]
    assert database.find_request(key_of(pair)).digest == winner.digest


def test_what_is_spent_survives_the_process(database, pair, place, clock):
    database.spend(*sealed_request(pair))
    with KeyDatabase.opened(place) as again:
        assert again.find_pair(key_of(pair)).state is PairState.INVALID
        clock.move(LEASE_SECONDS)
        assert again.unanswered()[0].key_id == key_of(pair)


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database_is_said_in_one_sentence(tmp_path, content):
    path = tmp_path / "keys.sqlite"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="Cannot use the database"), KeyDatabase.opened(path):
        pass


def test_a_database_that_fails_later_is_said_in_one_sentence(place, database, pair):
    def use():
        with KeyDatabase.opened(place) as again:
            with database._engine.begin() as raw:
                raw.exec_driver_sql("DROP TABLE requests")
            again.unanswered()

    with pytest.raises(UsageError, match="Cannot use the database"):
        use()


def test_whoever_has_waited_too_long_for_an_import_is_told_to_wait_for_its_end(
    place, database, pair, monkeypatch
):
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0)
    impatient = postgresql._SESSION.replace("'lock_timeout', '30s'", "'lock_timeout', '1ms'")
    monkeypatch.setattr(postgresql, "_SESSION", impatient)

    def use():
        with KeyDatabase.opened(place) as again:
            again.revoke("stolen", key_id=key_of(pair))

    said = r"an import .* try again"
    with database.engine.begin(), pytest.raises(UsageError, match=said) as caught:
        use()
    assert caught.value.exit_status == UnreachableError.exit_status, "systemd begins a service anew"


def test_a_full_disk_is_no_reason_to_put_an_older_database_back(tmp_path):
    """In an older one, spent pairs would be valid again."""

    def use():
        with KeyDatabase.opened(tmp_path / "keys.sqlite") as database:
            with database.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA max_page_count=1")
            database.add_pairs(new_pair(SoftwareKey()) for _ in range(500))

    with pytest.raises(UsageError, match=r"is full; see that .* its disk has room; only a file"):
        use()


def test_an_error_of_the_database_shows_nothing_of_what_was_stored(database, pair):
    database.spend(*sealed_request(pair))
    with database._engine.begin() as raw:
        raw.exec_driver_sql("ALTER TABLE requests RENAME COLUMN response TO answer")
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as caught:
        database.store_response(key_of(pair), "granted", b"a sealed response")
    assert "a sealed response" not in str(caught.value)


def test_of_all_processes_one_imports_at_a_time(database, other_process):
    with alone(database), pytest.raises(UsageError, match="Another import runs"):
        alone(other_process).__enter__()
    with alone(other_process):
        pass


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_an_import_whose_connection_broke_keeps_nobody_out_and_ends(database, other_process):
    def may_import():
        with suppress(UsageError), alone(database):
            return True

    with alone(other_process) as still_alone:
        assert not may_import()
        still_alone()
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d"
                " ON d.oid = l.database AND d.datname = current_database()"
                " WHERE l.locktype = 'advisory' AND l.pid <> pg_backend_pid()"
            )
        wait_until(may_import, "the server to let go")
        for _ in range(2):  # also over a new connection
            with pytest.raises(UsageError, match="lost its connection"):
                still_alone()


def test_the_first_response_stands(database, pair):
    database.spend(*sealed_request(pair))
    assert database.store_response(key_of(pair), "granted", b"first") == b"first"
    assert database.store_response(key_of(pair), "granted", b"second") == b"first"
    assert events(database).count("answered") == 1


def test_a_response_is_kept_for_ten_minutes_and_the_record_for_ever(database, pair, clock):
    database.spend(*sealed_request(pair))
    database.store_response(key_of(pair), "granted", b"answer")
    clock.move(ANSWER_KEPT - 2)
    database.drop_old_responses()
    assert database.find_request(key_of(pair)).response == b"answer"
    clock.move(4)
    assert database.find_request(key_of(pair)).response is None
    database.drop_old_responses()
    record = database.find_request(key_of(pair))
    assert (record.response, record.outcome) == (None, "granted")


def test_a_pair_that_is_known_is_not_taken_in_again(database, pair):
    database.spend(*sealed_request(pair))
    assert not database.add_pairs([new_pair(pair)])
    assert database.find_pair(key_of(pair)).state is PairState.INVALID


def test_revoked_pairs_cannot_be_spent(database, pair, other_pair):
    assert set(database.revoke("lost", user_id="alice@office")) == {
        key_of(pair),
        key_of(other_pair),
    }
    assert not database.spend(*sealed_request(pair))
    assert database.revoke("again", user_id="alice@office") == []


def test_an_expired_pair_cannot_be_spent(database, clock):
    key = SoftwareKey()
    database.add_pairs([new_pair(key, not_after=int(clock.now) + 10)])
    clock.move(11)
    assert not database.spend(*sealed_request(key))
    assert database.expire() == [key_of(key)]
    assert database.find_pair(key_of(key)).state is PairState.INVALID


def statements(database, work):
    """How many statements it takes, and how many transactions."""
    seen = Counter()

    def count(name):
        return lambda *_: seen.update([name])

    hooks = [("before_cursor_execute", count("statements")), ("commit", count("commits"))]
    for hook in hooks:
        event.listen(database.engine, *hook)
    work()
    for hook in hooks:
        event.remove(database.engine, *hook)
    return seen


def add_many(database, number, **about):
    keys = [SoftwareKey() for _ in range(number)]
    database.add_pairs([new_pair(key, **about) for key in keys])


def test_revoking_many_pairs_takes_no_more_statements_than_one(database):
    add_many(database, 1, token_serial="a")
    add_many(database, 20, token_serial="b")
    one = statements(database, lambda: database.revoke("lost", token_serial="a"))
    many = statements(database, lambda: database.revoke("lost", token_serial="b"))
    assert one == many
    assert many["commits"] == 1  # all of them at once, or none


def test_many_tunnels_are_revoked_with_no_more_statements_than_one(database):
    for serial, number in (("a", 1), ("b", 20)):
        keys = [SoftwareKey() for _ in range(number)]
        database.add_pairs([new_pair(key, token_serial=serial) for key in keys])
        for key in keys:
            assert database.spend(*sealed_request(key, request_id=token_bytes(16)))
    one = statements(database, lambda: database.revoke_tunnels("lost", token_serial="a"))
    many = statements(database, lambda: database.revoke_tunnels("lost", token_serial="b"))
    assert one == many


def test_many_pairs_expire_in_portions_between_which_others_write(database, clock, monkeypatch):
    monkeypatch.setattr(pairs, "_AT_ONCE", 4)
    add_many(database, 10, not_after=int(clock.now) + 10)
    clock.move(11)
    seen = statements(database, database.expire)
    assert seen["commits"] == 4  # 4, 4 and 2, and none
    assert database.expire() == []
    with database.begin() as connection:
        records = [each for each in audit.read(connection, schema.audit) if each.event == "expired"]
        assert all(link.holds for link in follow(connection, schema.audit))
    assert len({record.facts["key_id"] for record in records}) == 10
    assert {record.facts["user_id"] for record in records} == {"alice@office"}


def test_the_answer_lists_the_tokens_other_invalid_pairs(database, pair, other_pair):
    stranger = SoftwareKey()
    database.add_pairs([new_pair(stranger, token_serial="2")])
    database.revoke("lost", key_id=key_of(other_pair))
    database.revoke("lost", key_id=key_of(stranger))
    record = database.find_pair(key_of(pair))
    assert database.invalid_pairs(record) == (key_of(other_pair),)


def test_no_pair_is_listed_as_invalid_before_it_has_expired(database, pair, clock):
    past = SoftwareKey()
    database.add_pairs([new_pair(past, not_after=database.clock() + 10)])
    clock.move(11)
    record = database.find_pair(key_of(pair))
    assert database.invalid_pairs(record) == ()
    database.expire()
    assert database.invalid_pairs(record) == (key_of(past),)


def test_a_key_is_destroyed_only_when_its_answer_needs_it_no_more(database, pair):
    database.spend(*sealed_request(pair))
    assert database.keys_to_destroy() == []
    database.store_response(key_of(pair), "granted", b"answer")
    assert database.keys_to_destroy() == [key_of(pair)]
    database.record_destroyed(key_of(pair))
    assert database.keys_to_destroy() == []


def test_ended_tunnels_are_accounted_for_once(database, pair):
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    ended = TunnelEnded(
        number=7, request_id=signed.request.request_id, reason="expired", ended_at=5
    )
    database.record_ended("work", (ended,))
    assert database.place("work") == ListPlace(7, ended.request_id)
    assert next(iter(database.pairs()))["end_reason"] == "expired"


@pytest.fixture
def in_a_file(tmp_path):
    with KeyDatabase.opened(tmp_path / "file" / "keys.sqlite") as opened:
        opened.add_pairs([new_pair(SoftwareKey())])
        yield opened


def test_the_file_is_the_owners_alone(in_a_file, tmp_path):
    paths = list((tmp_path / "file").iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


def test_the_file_is_synced_before_it_says_done(in_a_file):
    with in_a_file.begin() as connection:
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
        journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    assert (synchronous, journal) == (2, "wal")


def test_the_migrations_lead_to_the_schema(database):
    with database.begin() as connection:
        not_the_clock = {"include_name": lambda name, *_: name != "shift"}
        context = MigrationContext.configure(connection, opts=not_the_clock)
        assert compare_metadata(context, schema.metadata) == []


def test_a_state_that_is_none_cannot_be_written(database, pair):
    with pytest.raises(sqlalchemy.exc.IntegrityError), database.begin() as connection:
        connection.exec_driver_sql("UPDATE key_pairs SET state = 'valid', reason = 'spent'")

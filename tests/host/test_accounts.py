"""The accounts: append-only, chained, and signed so that no chain can be made anew."""

# ruff: noqa: S608  what statements are made of is in this file

import asyncio
from contextlib import contextmanager
from itertools import product

import pytest
from sqlalchemy.exc import DBAPIError

from carnet.audit import chain, keeper
from carnet.audit.chain import START, _digest, read
from carnet.audit.commands import check
from carnet.audit.heads import examine, keep_head, next_head
from carnet.audit.showing import Choice, chosen, describe
from carnet.database import transaction
from carnet.errors import CarnetError, UsageError
from carnet.wire.documents import AccountsHead, read_unverified, sign_document
from host_agent import schema
from tests.host.conftest import sealed_request
from tests.unit.examples import SoftwareKey

KEY = SoftwareKey()


def lift(connection):
    """Take the triggers away, as the owner of the database can."""
    for table in ("audit", "audit_heads", "key_pairs", "requests", "revoked_early"):
        if connection.dialect.name == "postgresql":
            for name in ("append_only", "kept"):
                trigger = f"{table}_{name} ON {table}"
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger}")
            continue
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")


def sign_now(database, key=KEY):
    with transaction(database.engine) as connection:
        head = next_head(connection, schema.audit, schema.audit_heads, "office")
        signed = sign_document(head, key.sign)
        keep_head(connection, schema.audit_heads, head.number, signed)
    return signed


def found(database, *witnesses, keys=(KEY.public_key,)):
    with database.begin() as connection:
        return examine(connection, schema.audit, schema.audit_heads, keys, witnesses)


def tamper(database, *statements):
    with database.engine.begin() as connection:
        lift(connection)
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def written(database, pair, other_pair):
    """Three records: two pairs imported, one spent."""
    database.spend(*sealed_request(pair))
    return database


def test_whole_accounts_are_whole_and_say_how_far_they_are_signed(written):
    assert found(written) == type(found(written))(records=3, signed=0)
    sign_now(written)
    written.record_destroyed(next(iter(written.keys_to_destroy()), b"") or _spent(written))
    assert (found(written).records, found(written).signed) == (4, 3)
    assert found(written).broken_at is None


def _spent(database):
    with database.begin() as connection:
        return next(e.facts["key_id"] for e in read(connection, schema.audit) if e.event == "spent")


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_sqlite_refuses_to_replace_a_record_too(written):
    statement = "INSERT OR REPLACE INTO audit SELECT number, 0, event, facts, digest FROM audit"
    with pytest.raises(DBAPIError, match="append-only"), written.engine.begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("statement", ["UPDATE audit SET at = 0", "DELETE FROM audit"])
def test_the_database_itself_refuses_a_change(written, statement):
    with pytest.raises(DBAPIError, match="append-only"), written.engine.begin() as connection:
        connection.exec_driver_sql(statement)
    assert found(written).records == 3


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit SET facts = digest WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 2", 2),
        ("UPDATE audit SET at = at + 1 WHERE number = 3", 3),
        ("UPDATE audit SET event = 'nothing' WHERE number = 1", 1),
        ("DELETE FROM audit WHERE number = 3", 3),
        ("DELETE FROM audit", 1),
    ],
)
def test_a_changed_dropped_or_cut_off_record_is_found(written, statement, broken_at):
    sign_now(written)
    tamper(written, statement)
    assert found(written).broken_at == broken_at


def test_reordered_records_are_found(written):
    tamper(
        written,
        "UPDATE audit SET number = 99 WHERE number = 1",
        "UPDATE audit SET number = 1 WHERE number = 2",
        "UPDATE audit SET number = 2 WHERE number = 99",
    )
    assert found(written).broken_at == 1


POSITIONS = range(1, 4)
CHANGES = ("number = 99", "at = at + 1", "event = 'x'", "facts = digest", "digest = facts")


def every_way():
    """What can be done to one record at each place, and the first that is then not right."""
    for n in POSITIONS:
        for change in CHANGES:
            yield [f"UPDATE audit SET {change} WHERE number = {n}"], n
        yield [f"DELETE FROM audit WHERE number = {n}"], n
        for other in range(n + 1, POSITIONS.stop):
            yield exchanged(n, other), n
        for place in range(n + 1, POSITIONS.stop + 1):
            yield doubled(n, place), place


def exchanged(n, other):
    moves = [(n, 99), (other, n), (99, other)]
    return [f"UPDATE audit SET number = {new} WHERE number = {old}" for old, new in moves]


def doubled(n, place):
    """Insert record `n` once more at a place behind it; those from there on make room."""
    copy = f"SELECT {place}, at, event, facts, digest FROM audit WHERE number = {n}"
    return [
        f"UPDATE audit SET number = number + 100 WHERE number >= {place}",
        f"INSERT INTO audit (number, at, event, facts, digest) {copy}",
        "UPDATE audit SET number = number - 99 WHERE number > 100",
    ]


def test_whatever_is_done_to_a_record_at_any_place_is_found_there(written):
    sign_now(written)
    with written.engine.connect() as connection:
        lift(connection)
        for statements, broken_at in every_way():
            with connection.begin_nested() as undone:
                for statement in statements:
                    connection.exec_driver_sql(statement)
                found = examine(connection, schema.audit, schema.audit_heads, [KEY.public_key])
                undone.rollback()
            assert found.broken_at == broken_at, statements
        assert found.records == broken_at - 1


@contextmanager
def without_primary_key(database, *statements):
    """Have the table of records take whatever it is given, and change it, for a while."""
    moved = ("ALTER TABLE audit RENAME TO whole", "CREATE TABLE audit AS SELECT * FROM whole")
    with database.engine.connect() as connection, connection.begin() as undone:
        for statement in (*moved, *statements):
            connection.exec_driver_sql(statement)
        yield connection
        undone.rollback()


def copied(number, place):
    values = f"{place}, at, event, facts, digest"
    return f"INSERT INTO audit SELECT {values} FROM audit WHERE number = {number}"


def test_a_record_that_is_there_twice_is_found_wherever_a_page_ends(written, monkeypatch):
    for page, number in product((1, 2, 3, 1000), POSITIONS):
        monkeypatch.setattr(chain, "_ROWS_AT_ONCE", page)
        with without_primary_key(written, copied(number, number)) as connection:
            twice = examine(connection, schema.audit, schema.audit_heads, ())
            assert (twice.broken_at, twice.records) == (number, number - 1), page
            assert "twice" in twice.reason
            assert len(list(read(connection, schema.audit))) == 4


def test_a_record_at_a_place_where_none_can_be_is_found(written, monkeypatch):
    monkeypatch.setattr(chain, "_ROWS_AT_ONCE", 2)
    for place, broken_at in (("0", {1}), ("-7", {1}), ("NULL", {1, 4}), ("5", {4})):
        with without_primary_key(written, copied(3, place)) as connection:
            found = examine(connection, schema.audit, schema.audit_heads, ())
            assert found.broken_at in broken_at, place


def make_anew(database, number=1, **values):
    """Write a record over, and then all of the chain, so that it holds again."""
    changed = schema.audit.update().where(schema.audit.c.number == number)
    with database.engine.begin() as connection:
        lift(connection)
        connection.execute(changed.values(**(values or {"at": 1})))
        previous = START
        rows = connection.execute(schema.audit.select().order_by(schema.audit.c.number)).all()
        for row in rows:
            previous = _digest(previous, row.number, row.at, row.event, row.facts)
            connection.execute(
                schema.audit.update()
                .where(schema.audit.c.number == row.number)
                .values(digest=previous)
            )


def test_a_chain_made_anew_does_not_fit_the_signed_head(written):
    sign_now(written)
    make_anew(written)
    assert found(written).broken_at == 3
    assert "head was signed" in found(written).reason


def test_who_keeps_a_head_elsewhere_finds_what_is_cut_off_with_the_heads(written):
    witness = sign_now(written)
    tamper(written, "DELETE FROM audit WHERE number = 3", "DELETE FROM audit_heads")
    assert found(written).broken_at is None
    assert found(written, witness).broken_at == 3


def test_a_head_signed_by_somebody_else_is_none(written):
    sign_now(written, SoftwareKey())
    assert found(written).broken_at == 3
    assert "no key of these accounts" in found(written).reason


def test_a_strangers_head_hides_no_broken_chain(written):
    sign_now(written, SoftwareKey())
    assert found(written).is_chained
    tamper(written, "UPDATE audit SET at = at + 1 WHERE number = 3")
    assert (found(written).broken_at, found(written).is_chained) == (3, False)
    assert "does not follow" in found(written).reason


def test_without_keys_a_head_that_is_none_is_by_no_key_that_was_not_given(written):
    sign_now(written)
    tamper(written, "UPDATE audit_heads SET signed = digest FROM audit WHERE audit.number = 3")
    with written.begin() as connection:
        unread = examine(connection, schema.audit, schema.audit_heads, None)
    assert (unread.broken_at, unread.is_chained) == (3, True)
    with pytest.raises(CarnetError, match="none that was ever written; keep this database"):
        check(unread, other_keys="give keys")


def test_what_is_new_is_signed_at_intervals(written, other_pair, monkeypatch):
    monkeypatch.setattr(keeper, "INTERVAL_SECONDS", 0)

    async def main():
        signed = asyncio.Queue()

        async def sign(head):
            return sign_document(head, KEY.sign)

        async def next_signed():
            head = read_unverified(await asyncio.wait_for(signed.get(), 10), AccountsHead)
            return head.number

        tables = (written.engine, schema.audit, schema.audit_heads)
        running = asyncio.create_task(keeper.HeadKeeper(*tables, "office", sign, signed.put).run())
        assert await next_signed() == 3
        await asyncio.to_thread(written.spend, *sealed_request(other_pair))
        assert await next_signed() == 4
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())
    assert (found(written).records, found(written).signed) == (4, 4)


def test_a_running_agent_checks_at_once_where_it_is_asked_to(written):
    async def main():
        checked = asyncio.Queue()

        async def check():
            checked.put_nowait(True)
            raise UsageError("Not this one.")

        tables = (written.engine, schema.audit, schema.audit_heads)
        head_keeper = keeper.HeadKeeper(*tables, "office", KEY.sign, check=check)
        running = asyncio.create_task(head_keeper.run())
        for _ in range(2):
            await asyncio.wait_for(checked.get(), 10)
            head_keeper.asked.set()
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(main())


def test_a_witness_that_is_none_is_refused(written):
    assert found(written, b"no head").broken_at is not None


def test_a_record_says_which_step_it_is_and_what_it_was_in_aaa(written):
    with written.begin() as connection:
        spent = next(e for e in read(connection, schema.audit) if e.event == "spent")
    assert spent.facts["steps"] == [2, 3]
    assert spent.facts["functions"] == ["authentication", "authorization", "accounting"]


def test_an_event_without_a_meaning_cannot_be_written(written):
    with pytest.raises(KeyError), written.engine.begin() as connection:
        written._audit(connection, "something-new")


def test_records_are_chosen_by_user_request_event_and_time(written, pair):
    envelope, signed = sealed_request(pair)
    written.store_response(envelope.key_id, "unknown-user", b"sealed", "She is no member.")
    request_id = signed.request.request_id
    with written.begin() as connection:
        records = list(read(connection, schema.audit))

    def events(**choice):
        return [e.event for e in chosen(records, Choice(**choice))]

    assert events(user_id="alice@office") == ["imported", "imported", "spent", "answered"]
    assert events(user_id="bob@office") == []
    assert events(request_ids={request_id}) == ["spent", "answered"]
    assert events(event="spent") == ["spent"]
    assert events(until=0) == []
    assert records[-1].facts["reason"] == "She is no member."
    with written.begin() as connection:
        assert list(read(connection, schema.audit, since=records[-1].at + 1)) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET facts = digest",
        "UPDATE audit SET event = 'nothing'",
        "UPDATE audit SET at = 9000000000000000",
    ],
)
def test_what_was_tampered_with_is_still_shown(written, statement):
    tamper(written, statement)
    with written.begin() as connection:
        records = list(read(connection, schema.audit))
    assert [describe(record).split()[0] for record in records] == ["1", "2", "3"]


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_text_that_is_none_is_found_where_it_is(written):
    """SQLite keeps whatever it is given, and its driver stumbles over that."""
    tamper(written, "UPDATE audit SET event = CAST(x'ff' AS TEXT) WHERE number = 2")
    with pytest.raises(CarnetError, match="changed right after record 1:"):
        found(written)

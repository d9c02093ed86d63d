"""A Key Database that was put together from two of its states."""

import secrets
import shutil

import pytest
from sqlalchemy import text

from carnet.database.place import FilePlace
from carnet.errors import UsageError
from carnet.wire.keys import key_id_of
from host_agent.agreement import check_agreement
from host_agent.keydb import KeyDatabase
from tests.host.conftest import new_pair, sealed_request
from tests.host.test_accounts import lift, tamper
from tests.unit.examples import SoftwareKey

REFUSED = "does not agree with itself"


def change(database, statement):
    with database.engine.begin() as connection:
        connection.execute(text(statement))


def spend(database, key):
    envelope, signed = sealed_request(key, request_id=secrets.token_bytes(16))
    assert database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"sealed")


def test_a_database_as_it_was_written_is_served(database, pair, other_pair):
    check_agreement(database)
    spend(database, pair)
    database.revoke("stolen: fkey_idP", user_id="alice@office")
    database.add_pairs([new_pair(SoftwareKey())])
    check_agreement(database)


@pytest.mark.parametrize("event", ["spent", "revoked", "expired"])
def test_a_pair_that_is_valid_again_is_refused_by_its_record(database, pair, other_pair, event):
    if event == "spent":
        spend(database, pair)
    elif event == "revoked":
        database.revoke("stolen", key_id=key_id_of(pair.public_key))
    else:
        change(database, "UPDATE key_pairs SET not_after = 1")
        database.expire()
    change(database, "UPDATE key_pairs SET state = 'valid', reason = NULL")
    with pytest.raises(UsageError, match=f"{REFUSED}: .* record 3 says that it was {event}"):
        check_agreement(database)


def test_a_record_that_is_missing_is_refused(database, pair, other_pair):
    with database.engine.begin() as connection:
        lift(connection)
        connection.execute(text("DELETE FROM audit WHERE number = 1"))
    with pytest.raises(UsageError, match="of 2 records of its accounts 1 are there"):
        check_agreement(database)


def test_a_record_of_a_request_that_is_missing_is_refused(database, pair, other_pair):
    spend(database, pair)
    tamper(database, "DELETE FROM requests")
    with pytest.raises(UsageError, match="it has 0 requests, and its accounts have 1"):
        check_agreement(database)


def stale_log(place, keys):
    """Spend a first pair, close, spend a last one, and put the file of before beside that log."""
    backup, log = place.path.with_name("backup"), place.path.with_name("log")
    with KeyDatabase.opened(place) as database:
        database.add_pairs([new_pair(key, label=str(n)) for n, key in enumerate(keys)])
    shutil.copy(place.path, backup)
    with KeyDatabase.opened(place) as database:
        spend(database, keys[0])
    with KeyDatabase.opened(place) as database:
        spend(database, keys[-1])
        shutil.copy(f"{place.path}-wal", log)
    shutil.copy(backup, place.path)
    shutil.copy(log, f"{place.path}-wal")


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pairs", [96, 98, 100])
def test_a_file_restored_beside_the_log_of_a_newer_one_is_refused(place, pairs):
    """Whether the newest records are on a page that is there, or on one that nothing names."""
    keys = [SoftwareKey() for _ in range(pairs)]
    stale_log(place, keys)
    with KeyDatabase.opened(place) as database:
        assert database.find_pair(key_id_of(keys[0].public_key)).state == "valid"
        with pytest.raises(UsageError, match=REFUSED):
            check_agreement(database)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_page_that_is_none_is_refused(place: FilePlace):
    with KeyDatabase.opened(place) as database:
        database.add_pairs([new_pair(SoftwareKey(), label=str(n)) for n in range(100)])
    with place.path.open("r+b") as file:
        # Where the pairs are: past the pages that the schema itself takes.
        file.seek(-4096, 2)
        file.write(bytes(4096))
    with KeyDatabase.opened(place) as database, pytest.raises(UsageError, match=REFUSED):
        check_agreement(database)

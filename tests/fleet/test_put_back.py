"""A Key Database that is put back to an older state under a Host that runs."""

import shutil

import pytest
from sqlalchemy import text

from carnet.token.accounts import read_marks
from carnet.wire.documents import AccountsHead, read_unverified
from host_agent.keydb import KeyDatabase
from lab.errors import LabError
from lab.waiting import wait_until
from tests.fleet.test_concurrency import nothing_owed
from tests.fleet.traveller import open_grant, seal, send_one, send_until_answered
from tests.host.put_back import cut_off, newest

UNAVAILABLE = 503


def mark(hsm):
    with hsm.session() as session:
        return max(read_unverified(each, AccountsHead).number for each in read_marks(session))


def spend(process, key):
    request = seal(key)
    assert open_grant(key, request, send_until_answered([process.url], request))


@pytest.fixture
def spent(fleet, keys, hsm):
    """A Host that served a pair after the moment that is gone back to, and signed that."""

    def do(remember):
        (key,) = keys(1)
        remember()
        (process,) = fleet.start(1)
        spend(process, key)
        wait_until(lambda: nothing_owed(fleet.place), "the burn, the last record of all", 60)
        process.stop()
        assert mark(hsm) == newest(fleet.place)  # the head is signed at an orderly stop
        process.start()
        return key, process

    return do


def nothing_more_is_served(fleet, hsm, process, marked):
    """No pair is spent again, the HSM remembers, and no start gets past it."""
    assert len(fleet.gateway.driver.installs) == 1
    process.stop()
    assert mark(hsm) == marked
    assert '"database-older"' in process.log()
    with pytest.raises(LabError, match="older than its HSM"):
        process.start()
    process.wait()


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_spent_pair_is_not_served_after_the_server_is_put_back(fleet, spent, hsm, postgresql):
    name = fleet.place.url.database
    copy = f"{name}_older"
    key, process = spent(lambda: postgresql.execute(f"CREATE DATABASE {copy} TEMPLATE {name}"))
    marked = mark(hsm)
    postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")
    postgresql.execute(f"ALTER DATABASE {copy} RENAME TO {name}")
    assert send_one(process.url, seal(key)).status == UNAVAILABLE
    nothing_more_is_served(fleet, hsm, process, marked)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_file_put_back_without_its_log_is_served_by_no_process_and_no_start(
    fleet, keys, hsm, tmp_path
):  # fmt: skip
    """What is lost with the log no head had been signed of: the process alone knew it."""
    (key,) = keys(1)
    path, backup, away = fleet.place.path, tmp_path / "backup", tmp_path / "away"
    shutil.copy(path, backup)
    (process,) = fleet.start(1)
    spend(process, key)
    wait_until(lambda: nothing_owed(fleet.place), "the burn, the last record of all", 60)
    last = newest(fleet.place)
    assert mark(hsm) < last
    path.rename(away)
    backup.rename(path)
    assert newest(fleet.place) == last  # by the log, which goes with this look
    away.rename(path)
    assert newest(fleet.place) < last
    assert send_one(process.url, seal(key)).status == UNAVAILABLE
    wait_until(lambda: mark(hsm) == last, "the HSM to be told, at once", 60)
    process.stop()
    with pytest.raises(LabError, match=f"older than its HSM: record {last} "):
        process.start()
    process.wait()


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_spent_pair_that_is_valid_again_beside_its_record_is_not_served(fleet, spent):
    _, process = spent(lambda: None)
    process.stop()
    with KeyDatabase.opened(fleet.place) as database, database.engine.begin() as connection:
        connection.execute(text("UPDATE key_pairs SET state = 'valid', reason = NULL"))
    with pytest.raises(LabError, match="does not agree with itself"):
        process.start()
    process.wait()


def test_tables_put_back_in_their_place_are_noticed_when_heads_are_signed(fleet, spent, hsm):
    records = []
    _, process = spent(lambda: records.append(newest(fleet.place)))
    marked = mark(hsm)
    cut_off(fleet.place, records[0])
    nothing_more_is_served(fleet, hsm, process, marked)

"""A Key Database that lacks what the process itself has written there."""

import shutil
import subprocess
import sys
import threading

import pytest
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from carnet.audit.chain import ChangedError
from carnet.audit.newest import Mark, Newest
from carnet.database import forget_deleted
from carnet.wire.keys import key_id_of
from host_agent.keydb import PairState
from host_agent.rollback import OlderError, Witness
from tests.host.conftest import sealed_request
from tests.host.test_accounts import tamper

BACK = (
    "DELETE FROM audit WHERE number = 3",
    "DELETE FROM requests",
    "UPDATE key_pairs SET state = 'valid', reason = NULL",
)
"""All that the third record is of."""
OPEN = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM audit').fetchall()"
"""What any command does."""


def test_nothing_is_spent_where_a_record_of_the_process_is_missing(database, pair, other_pair):
    assert database.spend(*sealed_request(pair))
    tamper(database, *BACK)
    for key in (pair, other_pair):
        with pytest.raises(ChangedError, match="record 3 of the accounts is not in it"):
            database.spend(*sealed_request(key))
        assert database.find_pair(key_id_of(key.public_key)).state is PairState.VALID


def test_that_a_record_is_missing_is_told_once_of_each(database, pair, other_pair):
    told = []
    database.newest.on_missing = lambda: told.append(database.newest.mark.number)
    Witness(database)
    assert database.spend(*sealed_request(pair))
    assert not told
    tamper(database, "DELETE FROM audit WHERE number = 3")
    for _ in range(2):
        with pytest.raises(ChangedError):
            database.spend(*sealed_request(other_pair))
    assert told == [3]
    database.engine.dispose()
    with pytest.raises(OlderError):
        database.count()
    assert told == [3]


def test_of_two_threads_that_learn_at_once_the_newer_record_stays():
    newest, others = Newest(), []

    class Compared(Mark):
        @property
        def number(self):
            if not others:
                newer = threading.Thread(target=newest.learn, args=(Mark(3, b""),))
                others.append(newer)
                newer.start()
                newer.join(0.2)  # one that does not wait for this one has learned it by then
            return 1

    newest.mark = Compared.__new__(Compared)
    newest.learn(Mark(2, b""))
    others[0].join()
    assert newest.mark.number == 3


def test_nothing_is_missing_of_what_did_not_become_durable(database, pair):
    @event.listens_for(database.engine, "commit", once=True)
    def fail(_):
        raise SQLAlchemyError("the disk is full")

    with pytest.raises(SQLAlchemyError, match="is full"):
        database.spend(*sealed_request(pair))
    assert database.spend(*sealed_request(pair))


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("is_seen", "said"),
    [
        (True, "its -wal; see that the newest one is there, with its -wal, and start anew"),
        (False, "record 2 of the accounts is not in it"),
    ],
)
def test_a_file_put_back_without_its_log_is_not_used(
    database, place, pair, tmp_path, is_seen, said
):
    """Whoever opens another file beside the log takes it for that one's, and removes it."""
    Witness(database)
    backup, away, log = (tmp_path / each for each in ("backup", "away", f"{place.path.name}-wal"))
    assert forget_deleted(database.engine)
    shutil.copy(place.path, backup)
    assert database.spend(*sealed_request(pair))
    place.path.rename(away)
    backup.rename(place.path)
    if is_seen:
        with pytest.raises(SQLAlchemyError, match=said):
            database.count()
    assert log.exists()
    subprocess.run([sys.executable, "-Sc", OPEN, place.path], check=True)
    assert not log.exists()
    away.rename(place.path)
    with pytest.raises(SQLAlchemyError, match=said):
        database.count()
    with pytest.raises(SQLAlchemyError, match=said):
        database.spend(*sealed_request(pair, request_id=bytes(16)))

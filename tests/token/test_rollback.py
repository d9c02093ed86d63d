"""A Key Database that was put back to an older state, and an HSM that remembers better."""

import asyncio
import os
import shutil
import time
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy.exc import SQLAlchemyError

from carnet.audit.chain import ChangedError
from carnet.audit.heads import keep_head, newest_head, next_head
from carnet.database import transaction
from carnet.errors import TokenAwayError, TokenError, UsageError
from carnet.token import longterm
from carnet.token.accounts import accounts_key, sign_accounts, write_mark
from carnet.token.data import write_data
from carnet.wire.documents import AccountsHead, sign_document
from host_agent import schema
from host_agent.hsm import _sign_head
from host_agent.hsm_check import check_hsm
from host_agent.keydb import KeyDatabase
from host_agent.marks import Marks
from host_agent.rollback import (
    Witness,
    accept_older,
    advance_mark,
    check_not_older,
    have_accounts_key,
    keep_mark,
    newest_seen,
)
from softhsm import syncing
from softhsm.durable import sync_token
from tests.host.conftest import new_pair, sealed_request
from tests.host.test_accounts import tamper
from tests.token.full import small_disk
from tests.unit.examples import SoftwareKey


@pytest.fixture
def database(tmp_path):
    with KeyDatabase.opened(tmp_path / "served.sqlite") as opened:
        yield opened


@pytest.fixture
def spent_since(tmp_path, session):
    """A backup, and a database in which a pair was spent after it."""
    path, backup = tmp_path / "keys.sqlite", tmp_path / "backup.sqlite"
    key = SoftwareKey()
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(key)])
        advance_mark(database, session, "office")
    shutil.copy(path, backup)
    with KeyDatabase.opened(path) as database:
        database.spend(*sealed_request(key))
        advance_mark(database, session, "office")
    return path, backup


def test_the_newest_database_is_served(spent_since, session):
    with KeyDatabase.opened(spent_since[0]) as database:
        check_not_older(database, session)


def test_a_database_that_was_never_seen_is_served_by_a_new_hsm(tmp_path, session):
    with KeyDatabase.opened(tmp_path / "new.sqlite") as database:
        check_not_older(database, session)


def test_a_backup_put_back_is_not_served(spent_since, session):
    path, backup = spent_since
    shutil.copy(backup, path)
    with KeyDatabase.opened(path) as database, pytest.raises(UsageError, match="older than"):
        check_not_older(database, session)


def test_an_emptied_database_is_not_served(spent_since, tmp_path, session):
    emptied = KeyDatabase.opened(tmp_path / "emptied.sqlite")
    with emptied as database, pytest.raises(UsageError, match="older than"):
        check_not_older(database, session)


def test_another_history_of_the_same_length_is_not_served(spent_since, tmp_path, session):
    with KeyDatabase.opened(tmp_path / "other.sqlite") as database:
        for _ in range(2):
            database.add_pairs([new_pair(SoftwareKey())])
        with pytest.raises(UsageError, match="older than"):
            check_not_older(database, session)


def test_the_operator_may_go_on_with_a_backup_and_it_is_accounted_for(spent_since, session):
    path, backup = spent_since
    shutil.copy(backup, path)
    with KeyDatabase.opened(path) as database:
        accept_older(database, session, "office", "the disk died")
        check_not_older(database, session)
    with KeyDatabase.opened(spent_since[1]) as older, pytest.raises(UsageError):
        check_not_older(older, session)


def test_a_mark_that_the_hsm_did_not_sign_is_refused(tmp_path, session):
    accounts_key(session)
    forged = AccountsHead(version=1, agent="office", number=1, digest=bytes(32), signed_at=0)
    write_mark(session, sign_document(forged, SoftwareKey().sign), sync=sync_token)
    new = KeyDatabase.opened(tmp_path / "new.sqlite")
    with new as database, pytest.raises(UsageError, match="not signed by it"):
        check_not_older(database, session)


def test_of_two_processes_that_sign_at_an_hsm_the_newer_mark_stays(tmp_path, session):
    with KeyDatabase.opened(tmp_path / "keys.sqlite") as database:
        database.add_pairs([new_pair(SoftwareKey())])
        have_accounts_key(database, session)
        with transaction(database.engine) as connection:
            slow = next_head(connection, schema.audit, schema.audit_heads, "office")
        signed = sign_document(slow, lambda digest: sign_accounts(session, digest))
        database.add_pairs([new_pair(SoftwareKey())])
        advance_mark(database, session, "office")
        keep_mark(session, signed)
    assert newest_seen(session).number == slow.number + 1


def test_an_hsm_remembers_what_another_hsm_of_the_same_host_has_signed(tmp_path, session):
    with KeyDatabase.opened(tmp_path / "keys.sqlite") as database:
        advance_mark(database, session, "office")
        database.add_pairs([new_pair(SoftwareKey())])
        with transaction(database.engine) as connection:
            head = next_head(connection, schema.audit, schema.audit_heads, "office")
            signed = sign_document(head, SoftwareKey().sign)
            keep_head(connection, schema.audit_heads, head.number, signed)
        advance_mark(database, session, "office")
        with transaction(database.engine) as connection:
            assert newest_head(connection, schema.audit_heads) == signed
    assert newest_seen(session).number == head.number


def test_no_mark_is_written_over_by_an_older_database(spent_since, session):
    seen = newest_seen(session)
    with KeyDatabase.opened(spent_since[1]) as older, pytest.raises(UsageError, match="older than"):
        advance_mark(older, session, "office")
    assert newest_seen(session) == seen


def test_a_login_while_the_database_is_away_is_tried_again(tmp_path, session):
    """As where PostgreSQL and HSM go at the same time."""
    with KeyDatabase.opened(tmp_path / "keys.sqlite") as database:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE key_pairs RENAME TO away")
        with pytest.raises(TokenAwayError, match="does not answer"):
            check_hsm(database, Witness(database), "office", session)


def test_of_processes_that_start_together_at_a_new_hsm_one_makes_the_key(
    tmp_path, session, monkeypatch
):
    others = []

    def start_another(point):
        monkeypatch.setattr(longterm.crash, "reach", lambda point: None)
        others.append(Thread(target=have_accounts_key, args=(other_database, session)))
        others[0].start()
        others[0].join(1)  # one that does not wait for this one has made a key by then

    monkeypatch.setattr(longterm.crash, "reach", start_another)
    path = tmp_path / "keys.sqlite"
    with KeyDatabase.opened(path) as database, KeyDatabase.opened(path) as other_database:
        have_accounts_key(database, session)
        others[0].join()
    assert accounts_key(session)


def test_a_full_disk_is_called_that_and_the_mark_before_stays(database, session, directory):
    (token,) = (directory / "softhsm" / "tokens").iterdir()
    with small_disk(token) as disk:
        disk.fill()
        with pytest.raises(TokenError, match="is full; make room in"):
            have_accounts_key(database, session)
        disk.make_room()
        database.add_pairs([new_pair(SoftwareKey())])
        advance_mark(database, session, "office")
        seen = newest_seen(session)
        database.add_pairs([new_pair(SoftwareKey())])
        disk.fill()
        with pytest.raises(TokenError, match="is full; make room in"):
            advance_mark(database, session, "office")
        assert newest_seen(session) == seen
        disk.make_room()
        advance_mark(database, session, "office")
        assert newest_seen(session).number == seen.number + 1


@pytest.fixture
def synced(monkeypatch):
    """What is synced from now on: names, or None where it is all of a disk."""
    names, fsync = [], os.fsync

    def note(descriptor):
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(syncing, "_sync_disk", lambda _: names.append(None))
    # Else what was synced just now is, for certainty's sake, synced once more.
    monkeypatch.setattr(syncing, "_TICK", 0)
    return names


def test_a_head_is_kept_by_syncing_its_own_files_and_a_login_syncs_what_is_left(
    database, session, directory, synced
):
    """Nothing waits for what others write to the disk."""
    (token,) = (directory / "softhsm" / "tokens").iterdir()
    database.add_pairs([new_pair(SoftwareKey())])
    advance_mark(database, session, "office")
    assert {path.name for path in token.glob("*.object")} | {token.name} <= set(synced)
    assert None not in synced
    synced.clear()
    database.add_pairs([new_pair(SoftwareKey())])
    advance_mark(database, session, "office")
    assert synced.count(token.name) == 2  # with the new one, and without the older
    synced.clear()
    os.utime(token / "token.object")  # as a login does
    have_accounts_key(database, session)
    assert synced == []
    # As by a process that was killed then.
    write_data(session, "left", b"unsynced", private=True)
    have_accounts_key(database, session)
    assert synced[0] == token.name
    assert len(synced) == len({*synced}) > 2


def test_many_files_are_synced_with_all_of_the_disk(session, synced, monkeypatch):
    monkeypatch.setattr(syncing, "_FEW", 1)
    write_data(session, "one", b"value", private=True, sync=sync_token)
    assert synced == [None]


def test_a_clock_that_leaps_keeps_nothing_from_being_synced(session, synced, monkeypatch):
    def leap_and_sync(session):
        now = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() + 7200 * 10**9)
        sync_token(session)

    write_data(session, "one", b"value", private=True, sync=leap_and_sync)
    assert len(synced) > 2


def test_a_file_of_the_future_keeps_nothing_from_being_synced(session, synced, monkeypatch):
    """As a clock leaves it that was ahead, and was put right."""
    states = syncing._states

    def ahead(directory):
        future = (1, time.time_ns() + 2 * 86400 * 10**9)
        return states(directory) | {"future.object": future}

    monkeypatch.setattr(syncing, "_states", ahead)
    write_data(session, "one", b"value", private=True, sync=sync_token)
    assert len(synced) > 2


def test_what_is_another_user_s_is_synced_with_all_of_the_disk(session, synced, monkeypatch):
    """As after a command that root ran."""
    opened = os.open

    def refuse(path, *how, **about):
        if Path(path).suffix == ".object" and "softhsm" in str(path):
            raise PermissionError(13, "Permission denied")
        return opened(path, *how, **about)

    def sync(session):
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            sync_token(session)

    write_data(session, "one", b"value", private=True, sync=sync)
    assert None in synced


class LoggedIn:
    """An HSM that the service is logged in to."""

    def __init__(self, session):
        self._session, self.reason = session, None

    async def do(self, work):
        return work(self._session)

    store = do

    def leave(self, reason):
        self.reason = reason


def spend_unsigned(database, session):
    """Spend a pair, of which the second record is; the HSM remembers the first."""
    key = SoftwareKey()
    database.add_pairs([new_pair(key)])
    advance_mark(database, session, "office")
    database.spend(*sealed_request(key))


AS_BEFORE = (
    "DELETE FROM requests",
    "DELETE FROM key_pairs WHERE state = 'valid'",
    "UPDATE key_pairs SET state = 'valid', reason = NULL, invalid_at = NULL",
)
"""What is in no account any more."""


def check_marks(database, hsm):
    return asyncio.run(Marks(hsm, Witness(database), "office").check())


def test_the_hsm_is_told_what_the_process_alone_knows_of_a_database_put_back(database, session):
    spend_unsigned(database, session)
    hsm = LoggedIn(session)
    check_marks(database, hsm)
    assert newest_seen(session).number == 1
    tamper(database, "DELETE FROM audit WHERE number = 2")
    with pytest.raises(UsageError, match="record 2 of the accounts"):
        check_marks(database, hsm)
    assert hsm.reason
    # As a start would ask, which knows nothing but what the HSM does.
    assert newest_seen(session).number == 2
    with pytest.raises(UsageError, match="record 2 of the accounts"):
        check_not_older(database, session)


def test_an_hsm_that_was_away_is_told_as_it_is_logged_in_to(database, session):
    """Of what the database lacks, and of what it may lack that does not answer."""
    spend_unsigned(database, session)
    witness = Witness(database)
    check_hsm(database, witness, "office", session)
    assert newest_seen(session).number == 1
    for number in (2, 3):
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE audit RENAME TO away")
        with pytest.raises(TokenAwayError, match="does not answer"):
            check_hsm(database, witness, "office", session)
        assert newest_seen(session).number == number
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO audit")
        database.add_pairs([new_pair(SoftwareKey())])
    tamper(database, "DELETE FROM audit WHERE number = 4")
    with pytest.raises(UsageError, match="record 4 of the accounts") as missing:
        check_hsm(database, witness, "office", session)
    assert newest_seen(session).number == 4
    assert not witness.knows_more(newest_seen(session), missing.value)  # it is told once


def test_a_process_that_was_forgotten_undoes_a_restoration_until_it_is_done_again(
    tmp_path, database, session
):
    spend_unsigned(database, session)
    database.add_pairs([new_pair(SoftwareKey())])
    hsm = LoggedIn(session)
    check_marks(database, hsm)
    tamper(database, "DELETE FROM audit WHERE number > 1", *AS_BEFORE)
    with KeyDatabase.opened(tmp_path / "served.sqlite") as command:
        accept_older(command, session, "office", "the disk died")
        check_not_older(command, session)
        with pytest.raises(UsageError, match="record 3 of the accounts"):
            check_marks(database, hsm)
        with pytest.raises(UsageError, match="run `carnet-host audit restored`"):
            check_not_older(command, session)
        accept_older(command, session, "office", "the same, and all are stopped now")
        check_not_older(command, session)


def test_the_hsm_is_told_what_is_not_signed_yet_while_the_database_does_not_answer(
    database, session
):
    spend_unsigned(database, session)
    hsm = LoggedIn(session)
    marks = Marks(hsm, Witness(database), "office")
    asyncio.run(marks.check())
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit RENAME TO away")
    with pytest.raises(SQLAlchemyError):
        asyncio.run(marks.check())
    assert hsm.reason is None
    assert newest_seen(session).number == 2
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO audit")
    asyncio.run(marks.check())
    advance_mark(database, session, "office")


@pytest.mark.parametrize("is_asked_first", [True, False])
def test_what_a_process_wrote_is_not_forgotten_for_what_another_signed_in_its_place(
    database, tmp_path, session, is_asked_first
):
    """Two processes of one HSM, of which one alone wrote what the database lacks then."""
    spend_unsigned(database, session)
    tamper(database, "DELETE FROM audit WHERE number = 2")
    with KeyDatabase.opened(tmp_path / "served.sqlite") as other:
        hsm, others_hsm = LoggedIn(session), LoggedIn(session)
        marks = Marks(hsm, Witness(database), "office")
        others = Marks(others_hsm, Witness(other), "office")
        asyncio.run(others.check())
        for _ in range(2):
            other.add_pairs([new_pair(SoftwareKey())])
        if is_asked_first:
            with pytest.raises(UsageError, match="record 2 of the accounts"):
                asyncio.run(marks.check())
            with pytest.raises(UsageError, match="record 2 of the accounts"):
                asyncio.run(others.check())
            assert others_hsm.reason
            with database.engine.begin() as connection:
                connection.exec_driver_sql("ALTER TABLE audit RENAME TO away")
            with pytest.raises(SQLAlchemyError):
                asyncio.run(others.check())
            # Though the other knows of a third, of a history without this one.
            assert newest_seen(session).number == 2
            return
        advance_mark(other, session, "office")
        for _ in range(2):
            with pytest.raises(UsageError, match="record 2 of the accounts"):
                asyncio.run(marks.check())
        with pytest.raises(UsageError, match="record 2 of the accounts"):
            check_hsm(database, marks._witness, "office", session)
        assert hsm.reason
        with pytest.raises(ChangedError, match="record 2 of the accounts"):
            database.add_pairs([new_pair(SoftwareKey())])


def test_what_another_signed_is_known_once_the_database_holds_both(database, tmp_path, session):
    spend_unsigned(database, session)
    with KeyDatabase.opened(tmp_path / "served.sqlite") as other:
        other.add_pairs([new_pair(SoftwareKey())])
        advance_mark(other, session, "office")
    assert database.newest.mark.number == 2
    check_marks(database, LoggedIn(session))
    assert database.newest.mark.number == 3


def test_what_is_signed_in_the_place_of_what_the_process_wrote_is_not_gone_by(database, session):
    """Where the database is put back between the look at it and the signing."""
    spend_unsigned(database, session)
    marks = Marks(LoggedIn(session), Witness(database), "office")
    wrong = AccountsHead(version=1, agent="office", number=3, digest=bytes(32), signed_at=0)
    with pytest.raises(UsageError, match="record 3 of the accounts"):
        asyncio.run(marks.keep(_sign_head(session, wrong)))
    assert database.newest.mark.number == 2

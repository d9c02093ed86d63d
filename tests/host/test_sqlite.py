"""The embedded database's file: private, whole, and opened by one process at a time."""

import contextlib
import gc
import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from carnet import audit
from carnet.database import alone, forget_deleted, sqlite, transaction
from carnet.database.place import FilePlace
from carnet.database.turns import turn
from carnet.errors import UsageError
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.agreement import check_agreement
from host_agent.keydb import KeyDatabase
from lab.waiting import wait_until
from tests.host.conftest import new_pair, sealed_request
from tests.unit.examples import SoftwareKey

REVOKE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE key_pairs SET state = 'invalid', reason = 'revoked', invalid_at = 1"
                   " WHERE key_id = (SELECT min(key_id) FROM key_pairs)")
connection.commit()
"""
"""What another process does, of which no other one knows."""

WRITE_STOPPED = """
import signal, sys
from pathlib import Path
from carnet.database import transaction
from host_agent.keydb import KeyDatabase
with KeyDatabase.opened(Path(sys.argv[1])) as database:
    with transaction(database.engine):
        signal.raise_signal(signal.SIGTTOU)
        signal.raise_signal(signal.SIGTSTP)
    print("done", flush=True)
"""
"""What a command does in whose transaction Ctrl-Z is pressed, and that writes in the background."""


def opened(path):
    with KeyDatabase.opened(path) as database:
        return database.pairs()


def copied(source, destination):
    """As by `cp`: into the same file where there is one, and by another process."""
    subprocess.run(["cp", source, destination], check=True)


@pytest.mark.parametrize("size", [0, 1])  # SQLite itself takes a byte for nothing
def test_an_emptied_file_is_not_taken_for_a_new_one(tmp_path, size):
    path = tmp_path / "keys.sqlite"
    opened(path)
    os.truncate(path, size)
    with pytest.raises(UsageError, match="is empty"):
        opened(path)


def test_a_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "keys.sqlite"
    opened(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        opened(path)


def test_a_log_that_cannot_be_emptied_into_a_damaged_file_is_said_in_a_sentence(tmp_path):
    path = tmp_path / "keys.sqlite"

    def damage_and_empty():
        with KeyDatabase.opened(path) as database:
            database.engine.dispose()
            path.write_bytes(bytes(4096))
            forget_deleted(database.engine)

    with pytest.raises(UsageError, match="not a database"):
        damage_and_empty()


def test_no_connection_makes_a_file_in_place_of_one_that_was_moved_away(tmp_path):
    path = tmp_path / "keys.sqlite"

    def move_and_read():
        with KeyDatabase.opened(path) as database:
            database.engine.dispose()
            path.rename(tmp_path / "moved.sqlite")
            database.count()

    with pytest.raises(UsageError, match="unable to open"):
        move_and_read()
    assert not path.exists()


@pytest.mark.parametrize("is_made", [True, False])
def test_a_link_to_the_file_is_as_good_as_the_file(tmp_path, is_made):
    """As onto another disk; SQLite has the log beside the file itself."""
    path, link, key = tmp_path / "data" / "true.sqlite", tmp_path / "keys.sqlite", SoftwareKey()
    if is_made:
        opened(path)
    link.symlink_to(path)
    with KeyDatabase.opened(link) as database:
        database.add_pairs([new_pair(key)])
        assert database.spend(*sealed_request(key))
        path.rename(path.with_name("moved.sqlite"))
        with pytest.raises(UsageError, match="is gone, and its log"):
            opened(link)
        path.with_name("moved.sqlite").rename(path)
    with KeyDatabase.opened(path) as database:
        assert not database.spend(*sealed_request(key))


def test_a_link_that_leads_to_another_file_is_not_followed_until_it_is_opened_anew(tmp_path):
    link, names = tmp_path / "keys.sqlite", ("one", "other")
    for name in names:
        opened(tmp_path / name)
    link.symlink_to("one")
    with KeyDatabase.opened(link) as database:
        for name in reversed(names):
            link.unlink()
            link.symlink_to(name)
            with pytest.raises(OperationalError, match="another file was in its place"):
                database.count()


@pytest.mark.parametrize("is_connected", [True, False])
def test_another_file_in_its_place_is_not_served_until_it_is_opened_anew(tmp_path, is_connected):
    """An older one, beside the log of the newer; what was spent would be valid again."""
    path, backup, newer = (tmp_path / each for each in ("keys.sqlite", "backup", "newer"))
    key = SoftwareKey()
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(key)])
        forget_deleted(database.engine)
        shutil.copy(path, backup)
        assert database.spend(*sealed_request(key))
        assert forget_deleted(database.engine)
        database.add_pairs([new_pair(SoftwareKey())])
        if not is_connected:
            # As once it failed while no file was there; its inode is free then for the next.
            database.engine.dispose()
        path.rename(newer)
        backup.rename(path)
        for _ in range(2):
            with pytest.raises(OperationalError, match="another file was in its place"):
                database.find_pair(key_id_of(key.public_key))
        newer.rename(path)
        with pytest.raises(OperationalError, match="another file was in its place"):
            database.find_pair(key_id_of(key.public_key))
    with KeyDatabase.opened(path) as database:
        assert not database.spend(*sealed_request(key))


@pytest.mark.parametrize("gone", [("-wal",), ("-wal", "-shm")])
def test_a_connection_whose_log_is_gone_is_made_anew(tmp_path, gone):
    """What it writes there nobody else would find."""
    path, one, other = tmp_path / "keys.sqlite", SoftwareKey(), SoftwareKey()
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(one)])
        for each in gone:
            Path(f"{path}{each}").unlink()
        database.add_pairs([new_pair(other)])
        shutil.copy(path, tmp_path / "copy.sqlite")
        shutil.copy(f"{path}-wal", tmp_path / "copy.sqlite-wal")
    with KeyDatabase.opened(tmp_path / "copy.sqlite") as database:
        assert all(database.find_pair(key_id_of(each.public_key)) for each in (one, other))


def test_what_others_write_is_not_lost_where_the_shm_was_removed(tmp_path):
    """Whoever opens the file then has one of its own, of which the others know nothing."""
    path, keys = tmp_path / "keys.sqlite", [SoftwareKey() for _ in range(2)]
    key, other = sorted(keys, key=lambda each: key_id_of(each.public_key))
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(each) for each in (key, other)])
        with database.begin():
            database.count()  # by a second connection
            Path(f"{path}-shm").unlink()
            subprocess.run([sys.executable, "-Sc", REVOKE, path], check=True)
            with pytest.raises(OperationalError, match="-shm was removed, and connections"):
                database.count()
        for _ in range(2):  # each of the connections is made anew when it is its turn
            with contextlib.suppress(OperationalError):
                database.count()
        assert not database.spend(*sealed_request(key))
        assert database.spend(*sealed_request(other))
    with KeyDatabase.opened(path) as database:
        assert not database.spend(*sealed_request(key, request_id=bytes(16)))


def test_nor_where_it_is_not_used_again(tmp_path):
    path, key = tmp_path / "keys.sqlite", SoftwareKey()
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(key)])
        Path(f"{path}-shm").unlink()
        subprocess.run([sys.executable, "-Sc", REVOKE, path], check=True)
    with KeyDatabase.opened(path) as database:
        assert not database.spend(*sealed_request(key))


def test_who_closes_it_takes_no_lock_of_others_in_the_process(tmp_path):
    """As closing a descriptor would, of which there were several."""
    path = tmp_path / "keys.sqlite"
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(SoftwareKey())])
        opened(path)
        gc.collect()
        subprocess.run([sys.executable, "-Sc", REVOKE, path], check=True)
        assert Path(f"{path}-wal").stat().st_size  # that was not the last to close it


def test_the_file_is_held_so_that_no_other_gets_its_inode(tmp_path):
    path = tmp_path / "keys.sqlite"
    with KeyDatabase.opened(path) as database:
        database.engine.dispose()
        path.unlink()
        held = [each.stat() for each in Path("/proc/self/fd").iterdir() if is_of(each, path)]
        assert [each.st_nlink for each in held] == [0]


def is_of(descriptor, path):
    with contextlib.suppress(FileNotFoundError):
        return descriptor.readlink() == Path(f"{path} (deleted)")
    return False  # that of the listing itself


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ("moved", "the file was moved away"),
        ("exchanged", "another file was in its place"),
        ("-wal", "its -wal or -shm was removed"),
        ("-shm", "its -wal or -shm was removed"),
    ],
)
def test_no_connection_leads_to_a_file_that_was_moved_as_it_was_opened(
    tmp_path, monkeypatch, done, said
):
    path, other = tmp_path / "keys.sqlite", tmp_path / "other.sqlite"
    opened(other)
    on_connect = sqlite._on_connect

    def connect_and_move(*connection):
        on_connect(*connection)
        if done.startswith("-"):
            Path(f"{path}{done}").unlink()
            return
        path.rename(tmp_path / "moved.sqlite")
        if done == "exchanged":
            other.rename(path)

    opened(path)
    monkeypatch.setattr(sqlite, "_on_connect", connect_and_move)
    engine = sqlite.open_engine(FilePlace(path))
    with pytest.raises(OperationalError, match=said), engine.connect():
        pass


@pytest.mark.parametrize("is_logged", [True, False])
def test_a_backup_copied_onto_the_file_is_not_used(tmp_path, is_logged):
    """The newest record may come from the log then, and the pair from the backup: valid again."""
    path, backup, key = tmp_path / "keys.sqlite", tmp_path / "backup", SoftwareKey()
    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(key)])
        assert forget_deleted(database.engine)
        copied(path, backup)
        assert database.spend(*sealed_request(key))
        assert forget_deleted(database.engine)
        if is_logged:
            with database.newest.writing(database.engine) as connection:
                audit.append(connection, schema.audit, "restored", why="a test")
        # Held, so that the next has a connection which knows no page yet; or else nobody looks
        # between the emptying of the log and the copying.
        with database.begin() if is_logged else contextlib.nullcontext():
            copied(backup, path)
            for _ in range(2):
                with pytest.raises(OperationalError, match="was overwritten"):
                    database.spend(*sealed_request(key, request_id=bytes(16)))
    with KeyDatabase.opened(path) as database, contextlib.suppress(UsageError):
        check_agreement(database)
        assert not is_logged  # one that was put back whole its HSM knows better


def test_the_count_by_which_that_is_seen_may_begin_anew(tmp_path):
    path = tmp_path / "keys.sqlite"
    opened(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={2**31 - 1}")
    with KeyDatabase.opened(path) as database:
        for _ in range(2):
            database.add_pairs([new_pair(SoftwareKey())])
            assert forget_deleted(database.engine)


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ("copied", "was overwritten"),
        ("moved", "was moved away"),
        ("exchanged", "another file"),
        ("-shm", "its -wal or -shm was removed"),
    ],
)
def test_nothing_is_durable_of_a_transaction_under_which_the_file_was_put_back(
    tmp_path, done, said
):
    path, backup = tmp_path / "keys.sqlite", tmp_path / "backup"

    def write_meanwhile(database):
        with database.newest.writing(database.engine) as connection:
            audit.append(connection, schema.audit, "restored", why="a test")
            if done == "copied":
                copied(backup, path)
            elif done == "-shm":
                Path(f"{path}-shm").unlink()
            else:
                path.rename(tmp_path / "moved.sqlite")
            if done == "exchanged":
                backup.rename(path)

    with KeyDatabase.opened(path) as database:
        database.add_pairs([new_pair(SoftwareKey())])
        assert forget_deleted(database.engine)
        copied(path, backup)
        database.add_pairs([new_pair(SoftwareKey())])
        assert forget_deleted(database.engine)
        with pytest.raises(OperationalError, match=said):
            write_meanwhile(database)
        assert database.newest.mark.number == 2


def test_a_path_is_a_path_whatever_is_in_it(tmp_path):
    path = tmp_path / "a?b=c#d%41" / "keys.sqlite"
    opened(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["a?b=c#d%41"]


def test_a_command_that_is_stopped_lets_go_of_the_lock_first(tmp_path):
    path = tmp_path / "keys.sqlite"
    opened(path)
    # In a process group of its own, whose parent is of the same session: else nothing stops it.
    command = subprocess.Popen(
        [sys.executable, "-c", WRITE_STOPPED, path], stdout=subprocess.PIPE, process_group=0
    )
    try:
        assert os.WIFSTOPPED(os.waitpid(command.pid, os.WUNTRACED)[1])
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
        command.send_signal(signal.SIGCONT)
        assert command.communicate() == (b"done\n", None)
        assert command.returncode == 0
    finally:
        command.kill()
        command.wait()


def test_several_processes_may_make_it_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "keys.sqlite"
    processes = [context.Process(target=opened, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with KeyDatabase.opened(path) as database, database.begin() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"


def test_a_lock_that_root_makes_is_the_owners_of_the_file(tmp_path, monkeypatch):
    """Or the service, which is somebody else, could not take it after an operator's command."""
    path, given = tmp_path / "keys.sqlite", []
    with KeyDatabase.opened(path) as database:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "fchown", lambda _, *owner: given.append(owner))
        for _ in range(2):
            with alone(database.engine, "import") as is_alone:
                assert is_alone()
        owner = path.stat()
    assert given == [(owner.st_uid, owner.st_gid)]


def test_of_a_process_one_thread_alone_competes_for_the_lock(tmp_path):
    """SQLite has no queue: whoever finds its lock taken sleeps, and others pass by."""
    waits, begin = turn.__wrapped__.__code__, sqlite._on_begin.__code__

    def where():
        frame = sys._current_frames().get(other.ident)
        codes = {each.f_code for each, _ in traceback.walk_stack(frame)} if frame else set()
        return codes & {waits, begin}

    def write():
        with transaction(database.engine):
            pass

    other = threading.Thread(target=write)
    with KeyDatabase.opened(tmp_path / "keys.sqlite") as database:
        with transaction(database.engine):
            other.start()
            wait_until(where, "the other to write")
            waits_in = where()
        other.join()
    assert waits_in == {waits}

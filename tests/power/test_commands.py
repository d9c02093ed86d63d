"""Minting and importing under strace: what a power cut leaves of tokens, batch and database."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from carnet.audit.heads import newest_head
from carnet.database.place import FilePlace
from host_agent import schema
from host_agent.keydb import KeyDatabase
from softhsm.configuration import prepare
from tests.fleet.two_hsms import PAIRS, TwoHsms
from tests.power.disk import Disk, write_out
from tests.power.recorder import read_record, recorded
from tests.provisioning import tokens
from tests.provisioning.test_crashes import FOR_MINTING, minted_whole
from tests.provisioning.workplace import Workplace
from tests.target.certificates import Authority

SEEDS = range(6)
MOMENTS = 6


@dataclass
class Record:
    calls: list
    root: Path
    before: Path

    def leave(self, calls, seed, place):
        """Put in place what a machine finds whose power fails after these calls."""
        disk = Disk(self.root, self.before)
        for call in calls:
            disk.replay(call)
        write_out(disk.after_power_loss(seed), self.root, place)

    def removals(self):
        """The places at which something that a token held is just removed."""
        return [
            number + 1
            for number, call in enumerate(self.calls)
            if call.name.startswith("unlink") and b".object" in b"".join(call.texts)
        ]

    def moments(self):
        """Some of the places at which something was just synced or renamed."""
        wanted = {"fsync", "syncfs", "rename"}
        places = [
            number + 1
            for number, call in enumerate(self.calls)
            if call.name in wanted and str(self.root) in call.of + str(call.texts)
        ]
        return places[:: max(1, len(places) // MOMENTS)]


@pytest.fixture(scope="module")
def minting(tmp_path_factory):
    kept = tmp_path_factory.mktemp("minting")
    workplace = Workplace(kept / "station")
    workplace.prepare()
    shutil.copytree(workplace.directory, kept / "before")
    done = workplace.run(
        *workplace.order(), secrets=FOR_MINTING, before=recorded([], kept / "trace")
    )
    assert done.returncode == 0, done.stderr
    return Record(read_record(kept / "trace"), workplace.directory, kept / "before")


def at_work_in(place):
    workplace = Workplace(place)
    for home in (workplace.host, workplace.traveller):
        prepare(home.directory)  # its softhsm2.conf has the other's path
    return workplace


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mint_that_said_it_was_done_is_done(minting, seed, tmp_path):
    place = tmp_path / "found"
    minting.leave(minting.calls, seed, place)
    assert (place / "batch").read_bytes() == (minting.root / "batch").read_bytes()
    minted_whole(at_work_in(place), "batch")


def test_the_journal_is_closed_when_all_that_was_minted_is_kept(minting, tmp_path):
    place = tmp_path / "found"
    minting.leave(minting.calls[: minting.removals()[-1]], 1, place)
    minted_whole(at_work_in(place), "batch")


@pytest.mark.parametrize("number", range(MOMENTS))
def test_a_mint_is_run_again_wherever_the_power_failed(minting, number, tmp_path):
    moments = minting.moments()
    assert len(moments) >= MOMENTS
    place = tmp_path / "found"
    minting.leave(minting.calls[: moments[number]], number, place)
    workplace = at_work_in(place)
    done = workplace.run(*workplace.order(), secrets=FOR_MINTING)
    # At the last moment the first mint may be done, and then it says so.
    is_done = number == MOMENTS - 1 and "exists already" in done.stderr
    assert done.returncode == 0 or is_done, done.stderr
    minted_whole(workplace, "batch")


@pytest.fixture(scope="module")
def importing(tmp_path_factory):
    kept = tmp_path_factory.mktemp("importing")
    root = kept / "host"
    root.mkdir()
    place = FilePlace(root / "keys.sqlite")
    fleet = TwoHsms(root, place, Authority(root), SimpleNamespace(port=1))
    shutil.copytree(root, kept / "before")
    host, batch = fleet.processes[0], str(fleet.batches[0])
    done = host.run_with_pin("import", batch, before=recorded([], kept / "trace"))
    assert done.returncode == 0, done.stderr
    return Record(read_record(kept / "trace"), root, kept / "before"), fleet


@pytest.mark.parametrize("seed", SEEDS)
def test_an_import_that_said_it_was_done_is_done(importing, seed, tmp_path):
    record, fleet = importing
    place = tmp_path / "found"
    record.leave(record.calls, seed, place)
    with KeyDatabase.opened(place / "keys.sqlite") as database:
        valid = {pair["key_id"].hex() for pair in database.pairs(state="valid")}
    assert len(valid) == PAIRS
    fleet.homes[0] = tokens.Home(place / "hsm-a")
    assert fleet.held(0) == valid


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pair_is_not_valid_before_its_key_is_kept(importing, seed, tmp_path):
    """At each sync of the database: what it says is valid, the HSM holds."""
    record, fleet = importing
    syncs = [
        number + 1
        for number, call in enumerate(record.calls)
        if call.name in {"fsync", "fdatasync"} and ".sqlite" in call.of
    ]
    place = tmp_path / "found"
    record.leave(record.calls[: syncs[-1 - seed]], seed, place)
    with KeyDatabase.opened(place / "keys.sqlite") as database:
        valid = {pair["key_id"].hex() for pair in database.pairs(state="valid")}
    fleet.homes[0] = tokens.Home(place / "hsm-a")
    assert valid <= fleet.held(0)


@pytest.mark.parametrize("seed", range(3))
def test_a_head_is_not_in_the_database_before_the_key_that_signed_it_is_kept(
    importing, seed, tmp_path
):
    record, fleet = importing
    last = max(
        number + 1
        for number, call in enumerate(record.calls)
        if call.name in {"fsync", "fdatasync"} and ".sqlite" in call.of
    )
    place = tmp_path / "found"
    record.leave(record.calls[:last], seed, place)
    with KeyDatabase.opened(place / "keys.sqlite") as database, database.begin() as connection:
        head = newest_head(connection, schema.audit_heads)
    fleet.homes[0] = tokens.Home(place / "hsm-a")
    assert fleet.signed(0, head)


@pytest.fixture(scope="module")
def marking(importing, tmp_path_factory):
    """What a command does that replaces the mark on the HSM; and the number of the first."""
    kept = tmp_path_factory.mktemp("marking")
    imported, fleet = importing
    host, batch = fleet.processes[0], str(fleet.batches[0])
    host.run("revoke", "--user", "alice@office", "--reason", "a test")
    fleet.homes[0] = tokens.Home(imported.root / "hsm-a")
    first = fleet.mark(0)
    shutil.copytree(imported.root, kept / "before")
    done = host.run_with_pin("import", batch, before=recorded([], kept / "trace"))
    assert done.returncode == 0, done.stderr
    assert fleet.mark(0) > first
    return Record(read_record(kept / "trace"), imported.root, kept / "before"), fleet, first


@pytest.mark.parametrize("seed", range(3))
def test_wherever_the_power_fails_as_a_mark_is_replaced_the_hsm_has_one(marking, seed, tmp_path):
    """After each name that goes, and at the end, when it is the newer one."""
    record, fleet, first = marking
    gone = record.removals()
    assert gone
    for cut in (*gone, len(record.calls)):
        place = tmp_path / str(cut)
        record.leave(record.calls[:cut], seed, place)
        fleet.homes[0] = tokens.Home(place / "hsm-a")
        mark = fleet.mark(0)
        assert mark > first if cut == len(record.calls) else mark >= first

"""A Key Database that is gone from its place, or is not what it was."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from carnet.interface import BATCHES, PAIRS
from host_agent.keydb import KeyDatabase
from lab.errors import LabError
from tests.commands import run
from tests.host.interface import host_with_interface

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@pytest.fixture
def interface(tmp_path, place, monkeypatch):
    """A Host that does not serve yet."""
    with host_with_interface(tmp_path, place, monkeypatch) as made:
        yield made


def carnet_host(interface, *argv):
    command = [BIN / "carnet-host", "--config", interface.config, *argv]
    return run([*command, "--pin-file", interface.directory / "pin"], os.environ)


def files(place):
    return list(place.path.parent.glob(f"{place.path.name}*"))


def move(found, directory):
    for file in found:
        file.rename(directory / file.name)


def status(interface):
    return interface.ask("GET", PAIRS).status


@pytest.fixture
def away(tmp_path):
    path = tmp_path / "away"
    path.mkdir()
    return path


def test_a_host_whose_database_is_moved_away_serves_none(interface, place, away):
    interface.start()
    assert status(interface) == 200
    move(files(place), away)
    assert status(interface) == 503
    assert not place.path.exists()
    move(away.iterdir(), place.path.parent)
    assert status(interface) == 200


def test_an_older_file_in_its_place_is_not_served(interface, place, away):
    interface.start()
    interface.stop()
    for file in files(place):
        shutil.copy(file, away)
    interface.start()
    batch = interface.officer.sign(interface.split_batch(2))
    assert interface.ask("POST", BATCHES, batch).status == 200
    for file in files(place):
        file.unlink()
    move(away.iterdir(), place.path.parent)
    assert status(interface) == 503


def test_who_has_lost_all_of_it_begins_anew_with_one_that_the_service_made(interface, place):
    interface.start()
    batch = interface.officer.sign(interface.split_batch(2))
    assert interface.ask("POST", BATCHES, batch).status == 200
    interface.stop()
    for file in files(place):
        file.unlink()
    restored = ("audit", "restored", "--reason", "the disk is gone", "--yes")
    done = carnet_host(interface, *restored)
    assert (done.returncode, "There is no database" in done.stderr) == (2, True)
    assert not place.path.exists()
    with pytest.raises(LabError, match="older than its HSM"):
        interface.start()
    done = carnet_host(interface, *restored)
    assert (done.returncode, "stop it and run this once more" in done.stdout) == (0, True)
    interface.start()
    with KeyDatabase.opened(place) as database:
        assert database.count() == []


def test_no_command_that_needs_all_of_it_takes_one_that_contradicts_itself(interface, place):
    batch = interface.directory / "batch"
    batch.write_bytes(interface.officer.sign(interface.split_batch(1)))
    assert carnet_host(interface, "import", batch).returncode == 0
    with KeyDatabase.opened(place) as database:
        assert database.revoke("a test", user_id="alice@office")
        with database.engine.begin() as connection:
            connection.execute(text("UPDATE key_pairs SET state = 'valid', reason = NULL"))
    restored = ("audit", "restored", "--reason", "x", "--yes")
    for command in (("import", batch), ("sweep", "--yes"), restored):
        done = carnet_host(interface, *command)
        assert (done.returncode, "does not agree with itself" in done.stderr) == (2, True), command

"""Batches of any length, on both databases: taken whole or refused whole, in the same memory."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import structs

from carnet.errors import RefusedError
from carnet.progress import no_bar
from carnet.token.initialise import initialise_token
from carnet.token.session import open_session
from carnet.wire.documents import sign_document
from carnet.wire.keys import key_id_of
from host_agent import config as configuration
from host_agent.batch_file import batch_at
from host_agent.importing import record_batch
from host_agent.keydb import KeyDatabase, PairState
from host_agent.revoked_meanwhile import under_way
from tests.commands import run
from tests.host.batches import (
    Officer,
    host_config,
    public_key,
    sealing_key,
    split_batch,
    split_pairs,
    write,
)
from tests.host.importing import import_batch
from tests.host.interface import database_setting
from tests.host.put_back import cut_off, newest
from tests.host.real_host import PIN, SO_PIN, new_module
from tests.token.full import small_disk

MIB = 1024 * 1024
IN_FULL = "CARNET_SOAK" in os.environ
KILLED = -9
COMMAND = Path(sys.executable).with_name("carnet-host")


@dataclass
class Office:
    """A Host's configuration, its officer, and its HSM token, as `carnet-host` has them."""

    directory: Path
    officer: Officer
    config: Path
    place: object
    host_key: bytes = b""
    """The Host's, to which requests of pairs in custody `split` are sealed."""

    @property
    def pin_file(self):
        return self.directory / "pin"

    def batch(self, pairs, **changes):
        return split_batch(pairs, **({"host_transport_key": self.host_key} | changes))

    def write(self, batch):
        return write(self.directory / "batch", batch, self.officer)

    def run(self, *argv, crash_at=""):
        """Run `carnet-host`."""
        environment = os.environ | {"CARNET_CRASH_AT": crash_at}
        return run([COMMAND, "--config", self.config, *argv], environment)

    def import_again(self, crash_at=""):
        options = ("--pin-file", self.pin_file, "--json")
        return self.run("import", self.directory / "batch", *options, crash_at=crash_at)

    def take_in(self, batch):
        self.write(batch)
        return json.loads(self.import_again().stdout)

    def count(self):
        with KeyDatabase.opened(self.place) as database:
            return sum(each.pairs for each in database.count())


@pytest.fixture
def office(tmp_path, place, monkeypatch):
    directory = tmp_path / "office"
    directory.mkdir()
    module = new_module(directory, monkeypatch)
    initialise_token(module, label="hsm", so_pin=SO_PIN, pin=PIN)
    with open_session(module.choose("hsm"), PIN, writable=True) as session:
        host_key = sealing_key(session)
    for name in ("pin", "link.crt", "link.key"):
        (directory / name).touch(mode=0o600)
    (directory / "pin").write_text(PIN)
    text = configuration.render("office", [("work", "https://127.0.0.1:1")])
    kept = f'directory = "{directory}"\n{database_setting(place)}'
    config = directory / "host.toml"
    config.write_text(text.replace('directory = "/var/lib/carnet-host"', kept))
    return Office(directory, Officer(directory), config, place, host_key)


def test_a_split_batch_is_taken_in_once_and_as_such(office):
    batch = office.batch(3, not_after=2_000_000_000)
    done = office.take_in(batch)
    assert done == {"user_id": "alice@office", "pairs": 3, "new": 3}
    assert office.take_in(batch)["new"] == 0
    with KeyDatabase.opened(office.place) as database:
        for pair in batch.pairs:
            found = database.find_pair(key_id_of(pair.public_key))
            assert found.public_key == pair.public_key
            assert (found.custody, found.state) == ("split", PairState.VALID)
            assert found.host_key_id == key_id_of(office.host_key)
            assert found.not_after == 2_000_000_000


def test_a_pair_that_is_known_stays_as_it_is(office):
    batch = office.batch(3)
    office.take_in(batch)
    more = office.batch((*batch.pairs, *split_pairs(2)))
    assert office.take_in(more) == {"user_id": "alice@office", "pairs": 5, "new": 2}
    revoked = key_id_of(batch.pairs[1].public_key)
    with KeyDatabase.opened(office.place) as database:
        assert database.revoke("lost", key_id=revoked) == [revoked]
        # Nothing of it is on the HSM, so that no destruction of it is owed.
        assert database.keys_to_destroy() == []
    assert office.take_in(batch) == {"user_id": "alice@office", "pairs": 3, "new": 0}
    with KeyDatabase.opened(office.place) as database:
        assert database.find_pair(revoked).state is PairState.INVALID


def test_a_last_day_is_not_changed_by_another_batch(office):
    batch = office.batch(3)
    office.take_in(batch)
    office.write(office.batch((*batch.pairs, *split_pairs(1)), not_after=2_000_000_000))
    done = office.import_again()
    assert done.returncode == 3
    assert "(3 already known with another last day)" in done.stderr
    assert office.take_in(batch) == {"user_id": "alice@office", "pairs": 3, "new": 0}


def test_a_batch_that_brings_anew_what_cannot_be_used_is_refused_whole(office):
    """With pairs that are spent, or past their last day, or another's; new ones do not help."""
    batch, past = office.batch(3), office.batch(1, not_after=1)
    for each in (batch, past):
        office.take_in(each)
    with KeyDatabase.opened(office.place) as database:
        database.revoke("lost", key_id=key_id_of(batch.pairs[1].public_key))
    pairs = (*batch.pairs, *past.pairs, *split_pairs(1))
    old = key_id_of(past.pairs[0].public_key).hex()
    first, revoked, _ = (key_id_of(each.public_key).hex() for each in batch.pairs)
    three = f"{', '.join(sorted((first, old)))}, {revoked} and 1 more;"
    changed = {
        "of its 5 key pairs 2 cannot be used (1 already expired, 1 already revoked), namely "
        f"{old}, {revoked};": {},
        f"4 cannot be used (4 already another user's), namely {three}": {"user_id": "bob@office"},
        f"4 cannot be used (4 already another token's), namely {three}": {"token_serial": "2"},
    }
    for reason, changes in changed.items():
        office.write(office.batch(pairs, **changes))
        done = office.import_again()
        assert (done.returncode, done.stdout, reason in done.stderr) == (3, "", True), done.stderr
    assert office.count() == 4


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_the_hosts_keys_are_told_as_json_too(office):
    told, facts = (
        office.run("host-keys", "--pin-file", office.pin_file, *how) for how in ((), ("--json",))
    )
    said = json.loads(facts.stdout)
    assert (said["generation"], "".join(said["keys"])) == (1, told.stdout)
    assert said["fingerprint"] in told.stderr
    destroy = ("host-keys", "--destroy", "1", "--yes", "--pin-file", office.pin_file, "--json")
    refused = office.run(*destroy)
    assert (refused.returncode, refused.stdout) == (2, ""), refused.stderr
    with KeyDatabase.opened(office.place):
        pass  # it is made
    assert json.loads(office.run(*destroy).stdout) == {"generation": 1, "revoked": []}


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_key_that_a_full_disk_does_not_take_is_not_printed(office):
    (token,) = (office.directory / "softhsm" / "tokens").iterdir()
    commands = (("transport-key",), ("host-keys", "--new"), ("audit", "key"))
    with small_disk(token) as disk:
        disk.fill()
        for command in commands:
            refused = office.run(*command, "--pin-file", office.pin_file)
            assert (refused.returncode, refused.stdout) == (4, "")
            assert "is full; make room in" in refused.stderr
        disk.make_room()


def test_the_accounts_have_each_pair_once_and_hold(office):
    batch = office.batch(1500)
    office.take_in(batch)
    office.take_in(batch)
    assert office.run("audit", "show").stdout.count("imported") == 1500
    verified = office.run("audit", "verify", "--pin-file", office.pin_file)
    assert verified.returncode == 0, verified.stderr


def test_an_import_shows_how_far_it_is_where_that_is_wanted(office):
    office.write(office.batch(7))
    options = ("--pin-file", office.pin_file)
    quiet, told = (
        office.run("import", office.directory / "batch", *options, shown).stderr
        for shown in ("--no-progress", "--progress")
    )
    assert quiet == ""
    assert "Recording" in told
    assert "7/7" in told


def test_no_command_takes_in_or_destroys_by_an_older_database(office):
    office.take_in(office.batch(1))
    before = newest(office.place)
    office.take_in(office.batch(2))
    cut_off(office.place, before)
    office.write(office.batch(3))
    for argv in (["import", office.directory / "batch"], ["sweep", "--yes"]):
        done = office.run(*argv, "--pin-file", office.pin_file)
        assert (done.returncode, done.stdout) == (2, "")
        assert "older than its HSM" in done.stderr
    assert newest(office.place) == before


SIZES = (2000, 100_000 if IN_FULL else 14_000)
"""In full, as many as a batch can have."""


def test_memory_is_the_same_for_many_times_as_many_pairs(office):
    office.take_in(office.batch(1))  # making the database takes more than any batch
    done = [
        import_batch(office.config, office.write(office.batch(size)), office.pin_file)
        for size in SIZES
    ]
    assert [each.facts["new"] for each in done] == list(SIZES)
    # What is kept of each is its key_id, of 16 bytes; a whole pair would take half a kilobyte.
    assert done[1].peak - done[0].peak < 4 * MIB + 16 * SIZES[1]
    assert office.count() == 1 + sum(SIZES)


def forged(office):
    """Return batches that are refused, each with a word of the reason."""
    whole = sign_document(split_batch(5), office.officer.sign)
    pairs = split_pairs(5)
    twice = split_batch((*pairs, pairs[2]))
    other_suite = split_batch(3, suite=3)
    unlabelled = split_batch((*pairs[:4], structs.replace(pairs[4], label="x")))
    wrapped = split_batch((*pairs[:4], structs.replace(pairs[4], wrapped=bytes(80))))
    sign = office.officer.sign
    return {
        "is refused": whole[:-1],
        "cut short": b"",
        "not a COSE_Sign1": bytes(200),
        "behind its end": whole + b"\x00",
        "signature does not hold": whole[:300] + bytes([whole[300] ^ 1]) + whole[301:],
        "signature does not hold[^;]*; get it again from the officer registered": sign_document(
            split_batch(5), Officer(office.directory, "other.crt").sign
        ),
        "same key pair twice": sign_document(twice, sign),
        "not a public key of suite 3": sign_document(other_suite, sign),
        "without the label": sign_document(unlabelled, sign),
        "does not go with custody split": sign_document(wrapped, sign),
        "ephemeral key does not go with": sign_document(
            split_batch(5, ephemeral_key=public_key()), sign
        ),
        "speaks for @office only": sign_document(split_batch(5, user_id="bob@elsewhere"), sign),
    }


def test_what_is_not_right_is_refused_whole_with_the_reason(tmp_path):
    directory = tmp_path
    office = Office(directory, Officer(directory), directory, None)
    config = host_config(directory)
    for reason, data in forged(office).items():
        path = directory / "batch"
        path.write_bytes(data)
        with pytest.raises(RefusedError, match=reason), batch_at(path, config):
            pass


def test_a_file_that_is_changed_while_pairs_are_recorded_leaves_nothing(tmp_path, database):
    """Not in the first portion of the pairs but behind the second, when some are written."""
    officer = Officer(tmp_path)
    path = write(tmp_path / "batch", split_batch(2500), officer)
    with (
        batch_at(path, host_config(tmp_path)) as batch,
        no_bar("", 0) as advance,
        under_way(batch, database),
    ):
        changed = bytearray(path.read_bytes())
        at = changed.rindex(b"carnet 20261123")
        changed[at + 20] ^= 1
        with path.open("r+b") as file:
            file.write(changed)
        with pytest.raises(RefusedError, match="changed while it was read"):
            record_batch(batch, database, advance)
    assert database.count() == []


@pytest.mark.parametrize("where", ["import.pairs-added", "import.recorded"])
def test_an_import_that_is_killed_is_run_again(office, where):
    """Killed when a portion is written it leaves nothing; when all is, all."""
    batch = office.batch(1500)
    office.write(batch)
    assert office.import_again(crash_at=where).returncode == KILLED
    assert office.count() == (1500 if where == "import.recorded" else 0)
    again = json.loads(office.import_again().stdout)
    assert again["new"] == (0 if where == "import.recorded" else 1500)
    assert office.count() == 1500

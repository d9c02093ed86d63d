"""SIGKILL at every durable step of an import, by command and over the officer's interface.

On SQLite and on PostgreSQL: one Host each, with its HSM token, for all tests. `make test`
tries on PostgreSQL what is about the database, `make soak` all on both.
"""

import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import structs

from carnet.database.place import FilePlace
from carnet.token.batch_keys import BatchKeys
from carnet.token.onetime import OneTimeKeys
from host_agent.keydb import KeyDatabase
from lab.waiting import wait_until
from softhsm.configuration import CONFIGURATION_VARIABLE
from tests.commands import run
from tests.fleet.conftest import IN_FULL
from tests.host.conftest import postgres_place
from tests.host.interface import Interface, host_with_interface

COMMAND = Path(sys.executable).with_name("carnet-host")
KILLED = {-9, 137}
PAIRS = 2
PORTIONS = 1500
"""Pairs in custody `split` that are recorded in two portions."""

OF_THE_DATABASE = {
    "token": ["import.kept", "accounts.appended imported", "import.pairs-added", "import.recorded"],
    "wrapped": ["import.batch-key-begun", "import.pairs-added", "import.recorded"],
}
OF_THE_HSM = {
    "token": [
        "token.private-imported",
        "token.pair-imported",
        "accounts.head-kept",
        "token.stored carnet accounts head",
    ],
    "wrapped": ["token.batch-key-stored"],
}
SENT = ["interface.verified", "accounts.appended batch-received"]
SENT_AND_WRITTEN = ["import.pairs-added", "import.recorded"]


def on(database, *tables):
    """The steps, by key store, to be tried on a database."""
    return [(database, store, step) for each in tables for store in each for step in each[store]]


STEPS = on("sqlite", OF_THE_HSM, OF_THE_DATABASE) + on("postgresql", OF_THE_DATABASE)
STEPS += on("postgresql", OF_THE_HSM) if IN_FULL else []
SENDING = [("sqlite", step) for step in SENT + (SENT_AND_WRITTEN if IN_FULL else [])]
SENDING += [("postgresql", step) for step in SENT_AND_WRITTEN + (SENT if IN_FULL else [])]


@dataclass
class Office:
    """A Host and its officer; batches for it, and what comes of them."""

    host: Interface
    tokens: str
    """SoftHSM2's configuration."""

    def carnet_host(self, *argv, store="token", crash_at=""):
        """Run the command, with a PIN at hand if it wants one."""
        setting = self.host.config.read_text()
        config = self.host.directory / f"{store}.toml"
        config.touch(mode=0o600)
        config.write_text(setting.replace('token = "hsm"', f'token = "hsm"\nkey_store = "{store}"'))
        without = argv[0] in ("keys", "revoke") or argv[:2] == ("audit", "show")
        pin = () if without else ("--pin-file", self.host.directory / "pin")
        environment = os.environ | {"CARNET_CRASH_AT": crash_at}
        return run([COMMAND, "--config", config, *argv, *pin], environment)

    def dies(self, step, *argv, **how):
        done = self.carnet_host(*argv, crash_at=step, **how)
        assert done.returncode in KILLED, done.stderr

    def written(self, batch):
        path = self.host.directory / "batch"
        path.write_bytes(self.host.officer.sign(batch))
        return path

    def minted(self, **changes):
        """Mint pairs for the HSM; return the file of their batch."""
        return self.written(structs.replace(self.host.paired_batch(PAIRS), **changes))

    def imported(self, batch, **how):
        done = self.carnet_host("import", batch, "--json", **how)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def send(self, batch):
        return self.host.provision("send", batch, *self.host.host, "--json")

    def valid(self, store="token"):
        """Return the pairs in custody `paired` that are valid, and kept there."""
        with KeyDatabase.opened(self.host.place) as database:
            found = list(database.pairs(state="valid"))
        paired = (each for each in found if each["custody"] == "paired")
        return {each["key_id"] for each in paired if each["key_store"] == store}

    def on_hsm(self):
        """Return the pairs, and the keys of batches, that the HSM holds, whole or in part."""
        with self.host.session("hsm") as session:
            return OneTimeKeys(session).listed(), BatchKeys(session).held()

    def owes_nothing(self):
        with KeyDatabase.opened(self.host.place) as database:
            return database.keys_to_destroy() == []

    def batch_keys(self):
        with KeyDatabase.opened(self.host.place) as database:
            return {each.kek_id: each.state for each in database.batch_keys()}


@contextmanager
def at_work(place, directory):
    """A Host whose first import was killed as it made the key of the accounts."""
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        host_with_interface(directory, place, monkeypatch) as host,
    ):
        made = Office(host, os.environ[CONFIGURATION_VARIABLE])
        batch = made.minted()
        made.dies("token.public-stored carnet accounts", "import", batch)
        assert made.imported(batch)["pairs"] == PAIRS
        yield made
        host.stop()
        monkeypatch.setenv(CONFIGURATION_VARIABLE, made.tokens)
        verified = made.carnet_host("audit", "verify")
        assert verified.returncode == 0, verified.stderr
        imported = made.carnet_host("audit", "show", "--event", "imported")
        assert len(imported.stdout.splitlines()) == sum(host.counts().values())


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory):
    place = FilePlace(tmp_path_factory.mktemp("database") / "keys.sqlite")
    with at_work(place, tmp_path_factory.mktemp("killed")) as made:
        yield made


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory, postgresql):
    directory = tmp_path_factory.mktemp("killed")
    with (
        postgresql.database() as name,
        at_work(postgres_place(postgresql, name), directory) as made,
    ):
        yield made


@pytest.fixture
def office(request, monkeypatch):
    """One of the two, with its tokens."""
    made = request.getfixturevalue(f"on_{request.param}")
    monkeypatch.setenv(CONFIGURATION_VARIABLE, made.tokens)
    return made


BOTH = pytest.mark.parametrize("office", ["sqlite", "postgresql"], indirect=True)


@pytest.mark.parametrize(("office", "store", "step"), STEPS, indirect=["office"])
def test_an_import_that_was_killed_is_run_again_and_is_whole(office, store, step):
    before, batch = office.valid(store), office.minted()
    office.dies(step, "import", batch, store=store)
    # Not a pair is valid before its private key is known to be kept.
    assert office.valid() <= office.on_hsm()[0]
    if store == "wrapped":
        assert list(office.batch_keys().values()).count("import not finished") == 1
    assert office.imported(batch, store=store)["pairs"] == PAIRS
    assert len(office.valid(store)) == len(before) + PAIRS
    assert set(office.batch_keys().values()) <= {"in use"}
    assert office.on_hsm() == (office.valid(), office.batch_keys().keys())


@BOTH
def test_an_import_that_was_killed_can_be_given_up(office):
    before, batch = office.on_hsm(), office.minted()
    office.dies("import.kept", "import", batch)
    office.dies("import.given-up", "sweep", "--yes")
    assert f"  {PAIRS} private keys  import not finished" in office.carnet_host("keys").stdout
    given_up = office.carnet_host("sweep", "--yes", "--json")
    assert json.loads(given_up.stdout) == {"private_keys": PAIRS, "batch_keys": 0}
    assert office.on_hsm() == before
    assert "not finished" not in office.carnet_host("keys").stdout
    assert office.imported(batch)["new"] == PAIRS


@BOTH
def test_an_import_that_was_killed_is_revoked_with_its_token(office):
    before, batch = office.on_hsm(), office.minted(token_serial="stolen")
    office.dies("import.kept", "import", batch)
    revoke = ("revoke", "--token-serial", "stolen", "--reason", "a test")
    told = office.carnet_host(*revoke, "--json")
    assert json.loads(told.stdout) == {"revoked": [], "importing": PAIRS, "tunnels": 0}
    office.dies("accounts.appended revoked", "import", batch)
    for _ in range(2):
        done = office.carnet_host("import", batch)
        assert (done.returncode, "revoked while it was imported (a test)" in done.stderr) == (
            3,
            True,
        )
    assert office.on_hsm() != before
    office.host.start()
    wait_until(office.owes_nothing, "the service to destroy their keys", 60)
    office.host.stop()
    assert office.on_hsm() == before


def counted(office):
    return Counter(office.host.counts())


@pytest.mark.parametrize(("office", "step"), SENDING, indirect=["office"])
def test_a_host_that_is_killed_takes_the_batch_again(office, step):
    host, before = office.host, counted(office)
    batch = office.written(host.split_batch(PORTIONS))
    host.start(CARNET_CRASH_AT=step)
    assert office.send(batch).returncode == 6
    host.process.wait(60)
    new = PORTIONS if step == "import.recorded" else 0
    assert counted(office) - before == Counter(valid=new)
    assert not [each for each in (host.directory / "state").iterdir() if "tmp" in each.name]
    host.start()
    assert json.loads(office.send(batch).stdout)["new"] == PORTIONS - new
    host.stop()
    assert counted(office) - before == Counter(valid=PORTIONS)


@BOTH
def test_a_batch_is_revoked_that_the_killed_host_was_about_to_look_at(office):
    host, before = office.host, counted(office)
    batch = office.written(host.split_batch(PORTIONS, token_serial="left in a taxi"))
    host.start(CARNET_CRASH_AT="interface.verified")
    assert office.send(batch).returncode == 6
    host.process.wait(60)
    host.start()
    which = ("--token-serial", "left in a taxi", "--lost", "--reason", "a test")
    told = host.provision("revoke", *which, *host.host, "--json")
    assert json.loads(told.stdout) == {"revoked": 0, "importing": PORTIONS, "tunnels": 0}
    for _ in range(2):
        sent = office.send(batch)
        assert (sent.returncode, "revoked while it was imported" in sent.stderr) == (3, True)
    host.stop()
    assert counted(office) - before == Counter(lost=PORTIONS)


@BOTH
def test_a_restoration_that_was_killed_is_run_again(office):
    restored = ("audit", "restored", "--reason", "a test", "--yes")
    for step in ("accounts.appended restored", "accounts.head-kept"):
        office.dies(step, *restored)
    assert office.carnet_host(*restored).returncode == 0
    # The first left nothing; the second was accounted for, and so was the third.
    shown = office.carnet_host("audit", "show", "--event", "restored").stdout
    assert len(shown.splitlines()) == 2

"""SIGKILL at every durable step of `carnet-host import`, and the same command again."""

import json
import shutil

import pytest

from lab.world import World
from tests.lab.offices import AtWork

KILLED = {-9, 137}
PAIRS = 2


@pytest.fixture(scope="module")
def office(lane):
    """Nothing imported yet; the token stays at the officer's. No daemon is needed."""
    with World() as world:
        made = AtWork(world, lane)
        made.initialise_tokens()
        made.certify()
        made.configure()
        yield made


@pytest.fixture
def carried(office):
    """A batch of its own for each test, at the Host."""
    batch = office.world.officer.directory / f"{len(office.pairs())}.batch"
    office.mint(PAIRS, out=str(batch))
    shutil.copy(batch, office.world.host.directory / "alice.batch")


def import_killed_at(office, place):
    batch = str(office.world.host.directory / "alice.batch")
    killed_at(office, place, *office._host_argv(), "import", batch)


def killed_at(office, place, *argv):
    done = office.command(
        office.world.host, *argv,
        given=office.hsm_pin, extra={"CARNET_CRASH_AT": place}, check=False,
    )  # fmt: skip
    assert done.returncode in KILLED, done.stderr


@pytest.mark.parametrize(
    "place",
    [
        # First, while the HSM has no key for the accounts.
        "token.public-stored carnet accounts",
        "token.private-imported",
        "token.pair-imported",
        "import.kept",
        "accounts.appended imported",
        "import.pairs-added",
        "import.recorded",
        "accounts.head-kept",
        "token.stored carnet accounts head",
    ],
)
def test_an_import_that_was_killed_is_run_again_and_is_whole(office, carried, place):
    before = len(office.pairs())
    import_killed_at(office, place)
    # Not a pair is valid at Host before its private key is known to be kept.
    assert {pair["key_id"] for pair in office.pairs()} <= office.keys_on(office.world.host)
    done = office.import_batch()
    assert done["pairs"] == PAIRS
    assert office.import_batch()["new"] == 0
    pairs = office.pairs()
    assert len(pairs) == before + PAIRS
    held = [key["key_id"] for key in office.listing(office.world.host, office.secrets.hsm_pin)]
    assert sorted(held) == sorted(pair["key_id"] for pair in pairs)
    assert office.keys_on(office.world.host) == office.keys_on(office.world.officer)


def test_an_import_that_was_killed_can_be_given_up(office, carried):
    before = office.keys_on(office.world.host)
    import_killed_at(office, "import.kept")
    assert f"  {PAIRS} private keys  import not finished" in office.host("keys").stdout
    sweep = [*office._host_argv(), "sweep", "--yes"]
    killed_at(office, "import.given-up", *sweep)
    assert f"  {PAIRS} private keys  import not finished" in office.host("keys").stdout
    given_up = office.host("sweep", "--yes", "--json", given=office.hsm_pin)
    assert json.loads(given_up.stdout) == {"private_keys": PAIRS, "batch_keys": 0}
    assert office.keys_on(office.world.host) == before
    assert "not finished" not in office.host("keys").stdout
    assert office.import_batch()["new"] == PAIRS


def test_a_restoration_that_was_killed_is_run_again(office):
    restored = [*office._host_argv(), "audit", "restored", "--reason", "a test", "--yes"]
    for place in ("accounts.appended restored", "accounts.head-kept"):
        killed_at(office, place, *restored)
    office.command(office.world.host, *restored, given=office.hsm_pin)
    # The first left nothing; the second was accounted for, and so was the third.
    assert office.host("audit", "show").stdout.count("restored") == 2


def test_the_accounts_have_each_pair_once(office):
    shown = office.host("audit", "show").stdout
    assert shown.count("imported") == len(office.pairs())
    assert office.host("audit", "verify", given=office.hsm_pin).returncode == 0

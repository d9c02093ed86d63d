"""SIGKILL at each step of `carnet-host import` into key store `wrapped`, and the same again."""

import shutil

import pytest

from lab.world import World
from tests.lab.offices import WrappedOffice
from tests.lab.test_import_crashes import import_killed_at

PAIRS = 2


@pytest.fixture(scope="module")
def office(lane):
    with World() as world:
        made = WrappedOffice(world, lane)
        made.initialise_tokens()
        made.certify()
        made.configure()
        yield made


@pytest.fixture
def carried(office):
    """A batch of its own for each test, at the Host."""
    batch = office.world.officer.directory / f"{len(office.batches())}.batch"
    office.mint(PAIRS, out=str(batch))
    shutil.copy(batch, office.world.host.directory / "alice.batch")


@pytest.mark.parametrize(
    "place",
    [
        "import.batch-key-begun",
        "token.batch-key-stored",
        "import.pairs-added",
        "import.recorded",
    ],
)
def test_an_import_that_was_killed_is_listed_run_again_and_whole(office, carried, place):
    before, finished = len(office.pairs()), len(office.batches())
    import_killed_at(office, place)
    unfinished = [each for each in office.batches() if each["state"] == "import not finished"]
    assert len(unfinished) == 1
    assert office.import_batch()["pairs"] == PAIRS
    assert office.import_batch()["new"] == 0
    assert len(office.pairs()) == before + PAIRS
    assert {pair["key_store"] for pair in office.pairs()} == {"wrapped"}
    states = [(each["state"], each["pairs"]) for each in office.batches()]
    assert states == [("in use", PAIRS)] * (finished + 1)
    assert office.keys_on(office.world.host) == set()

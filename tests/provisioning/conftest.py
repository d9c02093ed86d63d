"""Everything here is real: the command in a process of its own, SoftHSM2, the files."""

import pytest

from lab.machine import Machine
from lab.readers import Card, CardReaders, loopback
from tests.provisioning.workplace import Workplace


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    workplace = Workplace(tmp_path_factory.mktemp("prepared"))
    workplace.prepare()
    return workplace


@pytest.fixture(scope="session")
def prepared_with_pairs(tmp_path_factory, prepared):
    workplace = Workplace(tmp_path_factory.mktemp("minted"))
    workplace.copy(prepared)
    workplace.mint(out="first")
    return workplace


@pytest.fixture
def minted(workplace, prepared_with_pairs):
    """The same, with three pairs minted into the batch `first`."""
    workplace.copy(prepared_with_pairs)
    return workplace


@pytest.fixture
def ready(workplace, prepared):
    """A workplace with an officer, alice's token and a Host's transport key, all its own."""
    workplace.copy(prepared)
    return workplace


@pytest.fixture
def card(workplace):
    """A fake card in a reader that this workplace's commands see."""
    directory = workplace.directory / "readers"
    directory.mkdir()
    machine = Machine("readers", directory)
    try:
        loopback(machine)
        readers = CardReaders(machine)
        readers.start()
        workplace.environment["PCSCLITE_CSOCK_NAME"] = str(readers.socket)
        card = Card(machine, 0, "alice")
        card.insert()
        yield card
    finally:
        machine.close()

"""Real SoftHSM2 tokens, each test with a directory of its own.

A process can load a PKCS#11 module but once, and SoftHSM2 reads SOFTHSM2_CONF at
C_Initialize. So every test names another configuration and has the one loaded module
start again.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from carnet.token.finding import MODULE_VARIABLE, find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, Token, load_module
from carnet.token.session import TokenSession, open_session
from lab.machine import Machine
from lab.readers import OPENSC, Card, CardReaders, loopback
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.token.helpers import PIN, SO_PIN, Pairing


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="carnet-token-") as name:
        yield Path(name)


@pytest.fixture
def module(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    monkeypatch.delenv(MODULE_VARIABLE, raising=False)
    monkeypatch.setenv(CONFIGURATION_VARIABLE, str(prepare(directory / "softhsm")))
    module = load_module(find_module(None))
    module.library.reinitialize()
    return module


@pytest.fixture
def make_token(module: Module) -> Callable[[str], Token]:
    def make(label: str) -> Token:
        return module.choose(initialise_token(module, label=label, so_pin=SO_PIN, pin=PIN))

    return make


@pytest.fixture
def token(make_token: Callable[[str], Token]) -> Token:
    return make_token("traveller")


@pytest.fixture
def session(token: Token) -> Iterator[TokenSession]:
    with open_session(token, PIN, writable=True) as session:
        yield session


@pytest.fixture
def pairing(make_token: Callable[[str], Token]) -> Iterator[Pairing]:
    make_token("traveller")
    host = make_token("host")
    traveller = host.module.choose("traveller")
    with ExitStack() as stack:
        yield Pairing(
            stack.enter_context(open_session(traveller, PIN, writable=True)),
            stack.enter_context(open_session(host, PIN, writable=True)),
        )


@pytest.fixture(scope="module")
def reader_machine() -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="carnet-readers-") as name:
        machine = Machine("readers", Path(name))
        try:
            loopback(machine)
            yield machine
        finally:
            machine.close()


@pytest.fixture(scope="module")
def readers_of_machine(reader_machine: Machine) -> CardReaders:
    return CardReaders(reader_machine)


@pytest.fixture(scope="module")
def cards_of_machine(reader_machine: Machine) -> tuple[Card, Card]:
    return Card(reader_machine, 0, "alice"), Card(reader_machine, 1, "bob")


@pytest.fixture
def pcscd(readers_of_machine: CardReaders, reader_socket: Path) -> Iterator[CardReaders]:
    """A pcscd that was just started, with two readers."""
    reader_socket.symlink_to(readers_of_machine.socket)
    try:
        readers_of_machine.start()
        yield readers_of_machine
    finally:
        readers_of_machine.kill()
        reader_socket.unlink()


@pytest.fixture
def cards(pcscd: CardReaders, cards_of_machine: tuple[Card, Card]) -> Iterator[tuple[Card, Card]]:
    """Two cards, neither of them in its reader."""
    for card in cards_of_machine:
        card.renew()
    yield cards_of_machine
    for card in cards_of_machine:
        card.remove()


@pytest.fixture
def opensc(pcscd: CardReaders) -> Iterator[Module]:
    module = load_module(Path(OPENSC))
    module.library.reinitialize()
    yield module
    module.library.reinitialize()

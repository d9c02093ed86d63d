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

from carnet.token.initialise import initialise_token
from carnet.token.module import MODULE_VARIABLE, Module, Token, find_module, load_module
from carnet.token.session import TokenSession, open_session
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

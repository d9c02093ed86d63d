"""Real PKCS#11 modules, all that is asked of them tried, and held against docs/TOKENS.md."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest

from carnet.token.cryptoki import PARAMETERS_VARIABLE
from lab.fake_piv import DEFAULT_PIN
from lab.machine import Machine
from lab.readers import OPENSC, Card, CardReaders, loopback
from lab.tpm import TPM2_PKCS11, Tpm
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.modules import matrix
from tests.modules.survey import Place, survey
from tests.token.helpers import PIN, SO_PIN

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
SOFTOKEN = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"


@contextmanager
def softhsm(directory: Path) -> Iterator[Place]:
    environment = {CONFIGURATION_VARIABLE: str(prepare(directory))}
    yield Place(SOFTHSM, PIN, so_pin=SO_PIN, environment=environment)


@contextmanager
def softoken(directory: Path) -> Iterator[Place]:
    """NSS's database; its SO PIN is empty, and its label is what it is."""
    parameters = f"configdir='sql:{directory}' certPrefix='' keyPrefix='' secmod='secmod.db' flags="
    yield Place(SOFTOKEN, PIN, so_pin="", slot="2", environment={PARAMETERS_VARIABLE: parameters})


@contextmanager
def tpm(directory: Path) -> Iterator[Place]:
    with machine("tpm", directory) as made:
        yield Place(TPM2_PKCS11, PIN, so_pin=SO_PIN, environment=Tpm(made).environment)


@contextmanager
def piv(directory: Path) -> Iterator[Place]:
    with machine("piv", directory) as made:
        readers = CardReaders(made)
        readers.start()
        card = Card(made, 0, "traveller")
        card.insert()
        yield Place(OPENSC, DEFAULT_PIN, environment={"PCSCLITE_CSOCK_NAME": str(readers.socket)})


@contextmanager
def machine(name: str, directory: Path) -> Iterator[Machine]:
    made = Machine(name, directory)
    try:
        loopback(made)
        yield made
    finally:
        made.close()


MODULES = {
    "SoftHSM2": softhsm,
    "NSS softoken": softoken,
    "tpm2-pkcs11": tpm,
    "OpenSC, PIV (a fake card)": piv,
}


@pytest.fixture(scope="module", params=MODULES)
def surveyed(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    with (
        tempfile.TemporaryDirectory(prefix="carnet-module-") as name,
        MODULES[request.param](Path(name)) as place,
    ):
        yield request.param, found_by(place)


def found_by(place: Place) -> dict[str, str]:
    """Survey in a process of its own: a module is loaded once a process, as it is told then."""
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=place.enter) as pool:
        return pool.submit(survey, place).result()


def test_what_is_written_of_it_is_what_was_found(surveyed: tuple[str, dict[str, str]]) -> None:
    matrix.check(*surveyed)


def test_the_table_has_these_modules_and_no_other() -> None:
    assert list(matrix.written()) == list(MODULES)


def test_a_key_that_shall_stay_stays_or_the_module_is_known_to_be_unfit(
    surveyed: tuple[str, dict[str, str]],
) -> None:
    name, found = surveyed
    assert (found["lets a private key out"] == "no way found") == (name != "NSS softoken")

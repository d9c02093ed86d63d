import os
import stat
from pathlib import Path

import pytest

from carnet.errors import TokenError
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, load_module
from carnet.token.session import open_session
from softhsm.configuration import (
    CONFIGURATION_VARIABLE,
    DIRECTORY_VARIABLE,
    default_directory,
    prepare,
    use_default,
)
from tests.token.helpers import PIN, SO_PIN


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def default(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Set first, so that monkeypatch takes away again what use_default() leaves.
    monkeypatch.setenv(CONFIGURATION_VARIABLE, "")
    monkeypatch.delenv(CONFIGURATION_VARIABLE)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(directory / "default"))
    return directory / "default"


def test_only_the_owner_may_look(directory: Path) -> None:
    (directory / "softhsm").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        configuration = prepare(directory / "softhsm")
    finally:
        os.umask(before)
    assert configuration == directory / "softhsm" / "softhsm2.conf"
    assert mode(configuration) == 0o600
    assert mode(directory / "softhsm") == mode(directory / "softhsm" / "tokens") == 0o700


def test_what_a_token_writes_only_the_owner_may_read(module: Module, directory: Path) -> None:
    before = os.umask(0)
    try:
        initialise_token(module, label="traveller", so_pin=SO_PIN, pin=PIN)
    finally:
        os.umask(before)
    paths = list((directory / "softhsm" / "tokens").rglob("*"))
    assert paths
    assert {mode(path) & 0o077 for path in paths} == {0}


def test_the_environment_names_the_default(default: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_directory() == default
    monkeypatch.delenv(DIRECTORY_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_directory() == Path("/data/carnet/softhsm")


def test_tokens_in_the_default_directory_are_found(default: Path, module: Module) -> None:
    del os.environ[CONFIGURATION_VARIABLE]
    prepare(default)
    use_default()
    initialise_token(module, label="default", so_pin=SO_PIN, pin=PIN)
    prepare(default)
    with open_session(load_module(find_module(None)).choose("default"), PIN, writable=False):
        pass
    assert list((default / "tokens").iterdir())


def test_a_default_that_is_not_there_changes_nothing(default: Path) -> None:
    use_default()
    assert CONFIGURATION_VARIABLE not in os.environ
    prepare(default)
    use_default()
    assert os.environ[CONFIGURATION_VARIABLE] == str(default / "softhsm2.conf")


def test_the_users_own_configuration_goes_first(
    default: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(default)
    monkeypatch.setenv(CONFIGURATION_VARIABLE, "/own/softhsm2.conf")
    use_default()
    assert os.environ[CONFIGURATION_VARIABLE] == "/own/softhsm2.conf"


@pytest.mark.parametrize("name", ["a#b", "a\nb"])
def test_a_path_that_softhsm_cannot_read_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(TokenError, match="choose another path"):
        prepare(directory / name)
    assert not (directory / name).exists()

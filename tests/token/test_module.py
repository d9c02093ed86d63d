import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pkcs11 import _pkcs11

from carnet.errors import TokenError
from carnet.token.finding import MODULE_VARIABLE, find_module, name_to_give
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, Token, load_module
from carnet.token.session import open_session
from tests.token.helpers import PIN, SO_PIN

INITIALISE = """
import sys
from carnet.token.initialise import initialise_token
from carnet.token.finding import find_module
from carnet.token.module import load_module

label, so_pin, pin = sys.stdin.read().split()
initialise_token(load_module(find_module(None)), label=label, so_pin=so_pin, pin=pin)
"""


def initialise_elsewhere(label: str) -> None:
    """Initialise a token in another process."""
    subprocess.run(
        [sys.executable, "-c", INITIALISE],
        input=f"{label} {SO_PIN} {PIN}",
        text=True,
        check=True,
        timeout=60,
    )


def test_a_module_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenError, match=r"no PKCS#11 module at /nowhere/module\.so"):
        find_module("/nowhere/module.so")
    monkeypatch.setenv(MODULE_VARIABLE, "/nowhere/other.so")
    with pytest.raises(TokenError, match=r"/nowhere/other\.so"):
        find_module(None)


def test_the_path_given_goes_before_the_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("given.so", "environment.so"):
        (directory / name).touch()
    monkeypatch.setenv(MODULE_VARIABLE, str(directory / "environment.so"))
    assert find_module(str(directory / "given.so")) == directory / "given.so"
    assert find_module(None) == directory / "environment.so"


def test_a_name_alone_is_looked_for_where_systems_install_modules_and_not_here(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = directory / "lib" / "pkcs11" / "named.so"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr("carnet.token.finding._LIBRARIES", (str(directory / "lib"),))
    monkeypatch.chdir(directory)
    Path("named.so").touch()
    with pytest.raises(TokenError, match=r"no PKCS#11 module at named\.so; install it"):
        find_module("named.so")
    assert find_module("./named.so") == directory / "named.so"
    installed.touch()
    assert find_module("named.so") == installed
    assert name_to_give(installed) == "named.so"
    assert name_to_give(directory / "named.so") == str(directory / "named.so")
    assert name_to_give(find_module(None)) is None


def test_no_module_anywhere_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODULE_VARIABLE, raising=False)
    monkeypatch.setattr("carnet.token.finding._KNOWN_MODULES", ())
    with pytest.raises(TokenError, match="install SoftHSM2"):
        find_module(None)


def test_a_file_that_is_no_module_is_refused(directory: Path) -> None:
    (directory / "text.so").write_text("no module")
    for path in (directory / "text.so", Path(_pkcs11.__file__)):
        with pytest.raises(TokenError, match="cannot be loaded, or is no PKCS#11 module"):
            load_module(path)


def test_a_module_is_loaded_once(module: Module) -> None:
    assert load_module(find_module(None)) is module


def test_no_token(module: Module) -> None:
    with pytest.raises(TokenError, match="No token was found"):
        module.choose(None)
    assert [info.initialised for info in module.tokens()] == [False]


def test_the_only_token_needs_no_name(token: Token, module: Module) -> None:
    assert module.choose(None).info == token.info
    assert module.choose(token.info.serial).info == token.info


def test_of_two_tokens_one_is_to_be_named(
    make_token: Callable[[str], Token], module: Module
) -> None:
    make_token("first")
    second = make_token("second")
    with pytest.raises(TokenError, match=r"2 tokens; .* first \(serial \w+\), second \(serial"):
        module.choose(None)
    assert module.choose("second").info == second.info
    with pytest.raises(TokenError, match="no token 'third'; choose one of first"):
        module.choose("third")


def test_of_two_tokens_alike_the_serial_decides(
    make_token: Callable[[str], Token], module: Module
) -> None:
    make_token("first")
    second = make_token("second").info.serial
    initialise_token(module, label="first", so_pin=SO_PIN, pin=PIN, selector=second, force=True)
    with pytest.raises(TokenError, match="2 tokens 'first'"):
        module.choose("first")
    assert module.choose(second).info.serial == second


def test_a_token_initialised_late_is_seen(module: Module) -> None:
    assert not [info for info in module.tokens() if info.initialised]
    initialise_elsewhere("late")
    assert module.choose("late").info.pin_set


def test_listing_tokens_keeps_an_open_session(token: Token, module: Module) -> None:
    with open_session(token, PIN, writable=False) as session:
        initialise_elsewhere("late")
        assert module.tokens()
        assert session.raw.generate_random(64)
    assert module.choose("late").info.pin_set


@pytest.mark.timeout(20)
def test_a_session_may_be_collected_while_tokens_are_listed(token: Token, module: Module) -> None:
    """One that nobody closed ends in whatever its thread does just then."""
    forgotten = open_session(token, PIN, writable=False)
    forgotten.__enter__()
    with module._lock:
        del forgotten
    assert module._sessions == 0

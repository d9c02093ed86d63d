import struct
from collections.abc import Callable
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import TokenFlag

from carnet.errors import TokenError
from carnet.token.cryptoki import Cryptoki
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, Token, TokenInfo
from carnet.token.session import open_public_session, open_session
from tests.token.helpers import PIN, SO_PIN

# As SoftHSM2's files have them: the type of an attribute, and the flags that a token begins with.
CKA_OS_TOKENFLAGS = bytes.fromhex("000000008000534b")
_AS_MADE = (
    TokenFlag.RNG
    | TokenFlag.LOGIN_REQUIRED
    | TokenFlag.RESTORE_KEY_NOT_NEEDED
    | TokenFlag.TOKEN_INITIALIZED
)


def test_a_blank_token_gets_label_and_pin(module: Module) -> None:
    serial = initialise_token(module, label="traveller", so_pin=SO_PIN, pin=PIN)
    info = module.choose("traveller").info
    assert (info.label, info.serial) == ("traveller", serial)
    assert info.initialised
    assert info.pin_set
    with open_session(module.choose(serial), PIN, writable=False):
        pass


@pytest.mark.usefixtures("token")
def test_a_label_is_given_but_once(module: Module) -> None:
    with pytest.raises(TokenError, match="'traveller' already"):
        initialise_token(module, label="traveller", so_pin=SO_PIN, pin=PIN)
    assert [info.label for info in module.tokens() if info.initialised] == ["traveller"]


def test_force_wipes_the_token_of_that_label(module: Module, token: Token) -> None:
    serial = token.info.serial
    again = initialise_token(module, label="traveller", so_pin=SO_PIN, pin="654321", force=True)
    assert again == serial
    with open_session(module.choose("traveller"), "654321", writable=False):
        pass
    with (
        pytest.raises(TokenError, match="PIN is wrong"),
        open_session(module.choose("traveller"), PIN, writable=False),
    ):
        pass


@pytest.mark.usefixtures("token")
def test_wiping_wants_the_so_pin(module: Module) -> None:
    with pytest.raises(TokenError, match="SO PIN is wrong") as caught:
        initialise_token(module, label="traveller", so_pin="not-it-42", pin=PIN, force=True)
    assert "not-it-42" not in str(caught.value)
    with open_session(module.choose("traveller"), PIN, writable=False):
        pass


def test_a_token_that_cannot_be_wiped_is_not_called_broken(
    module: Module, token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tpm2-pkcs11 answers to C_InitToken of a token that is initialised."""

    def fail(*_: object) -> None:
        raise pkcs11.GeneralError

    monkeypatch.setattr(Cryptoki, "init_token", fail)
    with pytest.raises(
        TokenError, match=r"could not be wiped \(GeneralError\), as no token of a TPM"
    ):
        initialise_token(module, label="traveller", so_pin=SO_PIN, pin=PIN, force=True)
    with pytest.raises(TokenError, match=r"The token failed \(GeneralError\)"):
        initialise_token(module, label="another", so_pin=SO_PIN, pin=PIN)
    assert token.info.label == "traveller"


def test_a_selected_token_is_not_wiped_unforced(module: Module, token: Token) -> None:
    with pytest.raises(TokenError, match="initialised already"):
        initialise_token(module, label="other", so_pin=SO_PIN, pin=PIN, selector=token.info.serial)
    with pytest.raises(TokenError, match="no token 'nowhere'"):
        initialise_token(module, label="other", so_pin=SO_PIN, pin=PIN, selector="nowhere")


def test_two_tokens_of_one_label_are_not_guessed_between(
    module: Module, make_token: Callable[[str], Token]
) -> None:
    make_token("first")
    second = make_token("second").info.serial
    initialise_token(module, label="first", so_pin=SO_PIN, pin=PIN, selector=second, force=True)
    with pytest.raises(TokenError, match="2 tokens 'first'; choose one by serial"):
        initialise_token(module, label="first", so_pin=SO_PIN, pin=PIN, force=True)


def test_a_token_in_use_is_not_wiped(module: Module, token: Token) -> None:
    with open_public_session(token), pytest.raises(TokenError, match="in use"):
        initialise_token(module, label="traveller", so_pin=SO_PIN, pin=PIN, force=True)


def test_a_pin_too_short_is_named_as_such(module: Module) -> None:
    with pytest.raises(TokenError, match="does not take this SO PIN"):
        initialise_token(module, label="traveller", so_pin="1", pin=PIN)
    with pytest.raises(TokenError, match="too short or too long"):
        initialise_token(module, label="traveller", so_pin=SO_PIN, pin="1")


@pytest.mark.usefixtures("token")
def test_a_pin_too_long_wipes_nothing(module: Module) -> None:
    with pytest.raises(TokenError, match="longer than 255 bytes"):
        initialise_token(module, label="traveller", so_pin=SO_PIN, pin="x" * 256, force=True)
    with open_session(module.choose("traveller"), PIN, writable=False):
        pass


@pytest.fixture
def cut_off(token: Token, directory: Path) -> TokenInfo:
    """A token whose initialising was killed in C_InitToken: it has a label, and no PIN yet."""
    (path,) = (directory / "softhsm").glob("tokens/*/token.object")
    whole = path.read_bytes()
    flags = whole.index(CKA_OS_TOKENFLAGS) + 2 * len(CKA_OS_TOKENFLAGS)
    locked = struct.pack(">Q", _AS_MADE | TokenFlag.SO_PIN_LOCKED)
    path.write_bytes(whole[:flags] + locked)
    (info,) = [each for each in token.module.tokens() if each.initialised]
    assert (info.label, info.so_pin_locked, info.pin_set) == ("traveller", True, False)
    return info


def test_a_token_whose_initialising_was_cut_off_is_in_nobody_s_way(
    module: Module, cut_off: TokenInfo
) -> None:
    """SoftHSM2 gives it no SO PIN any more, and so no PIN either."""
    assert module.choose(None).info.serial == cut_off.serial
    with pytest.raises(TokenError, match="can be initialised no more"):
        initialise_token(
            module, label="traveller", so_pin=SO_PIN, pin=PIN, selector=cut_off.serial, force=True
        )
    serial = initialise_token(module, label="traveller", so_pin=SO_PIN, pin=PIN)
    assert serial != cut_off.serial
    for named in (None, "traveller", serial):
        assert module.choose(named).info.serial == serial
    with open_session(module.choose(None), PIN, writable=False):
        pass


def test_a_label_too_long_is_refused(module: Module) -> None:
    with pytest.raises(TokenError, match="at most 32 bytes"):
        initialise_token(module, label="ü" * 17, so_pin=SO_PIN, pin=PIN)
    assert not [info for info in module.tokens() if info.initialised]

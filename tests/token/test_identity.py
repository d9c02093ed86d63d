"""Tokens of one serial number, as two of a TPM are: SoftHSM2's, which are made to tell it."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from carnet.errors import TokenError
from carnet.secret_sources import PIN_VARIABLE, SO_PIN_VARIABLE
from carnet.token.initialise import initialise_token
from carnet.token.module import Module, Token, TokenInfo
from carnet.token.presence import Lookout, Presence
from carnet.token.session import open_session
from provisioning.options import TokenAccess
from provisioning.tokens import token_init
from tests.token.helpers import PIN, SO_PIN
from token_client.config import ClientConfig
from token_client.plugging import Plug

SERIAL, OWN = "0000000000000000", "0123456789abcdef"
BOBS_PIN = "bobs-own-4712"

Tell = Callable[..., None]


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Have every token tell something else of itself."""
    real = TokenInfo.of

    def tell(**changes: str) -> None:
        monkeypatch.setattr(TokenInfo, "of", lambda token: replace(real(token), **changes))

    return tell


@pytest.fixture
def both(module: Module, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    initialise_token(module, label="alice", so_pin=SO_PIN, pin=PIN)
    initialise_token(module, label="bob", so_pin=SO_PIN, pin=BOBS_PIN)
    tell(serial=SERIAL)
    monkeypatch.setenv(PIN_VARIABLE, BOBS_PIN)
    monkeypatch.setenv(SO_PIN_VARIABLE, SO_PIN)
    yield module
    tell(serial=SERIAL)
    assert not module.choose("alice").info.pin_count_low


def takes(token: Token, pin: str) -> bool:
    with open_session(token, pin, writable=False) as session:
        return session.token.info.pin_set


def test_by_the_serial_number_alone_neither_is_chosen(both: Module) -> None:
    with pytest.raises(TokenError, match=f"2 tokens '{SERIAL}'.*alice .*, bob "):
        both.choose(SERIAL)


@pytest.mark.parametrize("serial", [SERIAL, OWN])
def test_the_one_that_was_chosen_is_the_one_that_is_kept_in_sight(
    both: Module, tell: Tell, serial: str
) -> None:
    tell(serial=serial)
    for label in ("alice", "bob"):
        lookout = Lookout(both.path, both.choose(label).info.identity)
        assert lookout.look() is Presence.HERE
        assert lookout.token is not None
        assert lookout.token.info.label == label


@pytest.mark.parametrize(("serial", "found"), [(SERIAL, Presence.GONE), (OWN, Presence.HERE)])
def test_a_label_that_changes_matters_where_the_serial_number_tells_nothing(
    make_token: Callable[[str], Token], tell: Tell, serial: str, found: Presence
) -> None:
    """OpenSC tells a card's own label only where it got as far as reading it."""
    token = make_token("alice")
    tell(serial=serial)
    lookout = Lookout(token.module.path, token.info.identity)
    tell(serial=serial, label="bob")
    assert lookout.look() is found


@pytest.mark.usefixtures("both")
def test_a_command_of_the_officers_logs_in_to_the_token_that_it_chose() -> None:
    access = TokenAccess(
        module=None, selector="bob", pin_fd=None, pin_file=None, allow_final_try=False
    )
    with access.login().session(writable=False) as session:
        assert session.token.info.label == "bob"


def plugged(selector: str) -> Plug:
    return Plug(ClientConfig(), selector, wait=False, tell=print, pulled=print)


def test_a_connection_logs_in_to_the_token_that_it_chose(both: Module) -> None:
    assert plugged("bob")._at_hand(lambda token: takes(token, BOBS_PIN))


def test_where_nothing_tells_two_apart_no_pin_is_tried(both: Module, tell: Tell) -> None:
    plug = plugged("bob")
    tell(serial=SERIAL, label="bob")
    with pytest.raises(TokenError, match=r"2 tokens bob .*, alike in label and serial number"):
        plug._at_hand(lambda token: takes(token, BOBS_PIN))
    with pytest.raises(TokenError, match="2 tokens 'bob', alike in label and serial number"):
        both.choose("bob")


def initialise(*options: str) -> str:
    done = CliRunner().invoke(token_init, options)
    return str(done.exception or done.output)


def test_the_token_is_wiped_whose_label_was_typed(both: Module) -> None:
    said = initialise("--label", "bob", "--force", "--confirm", "bob")
    assert "Token bob is initialised" in said
    assert takes(both.choose("alice"), PIN)


def test_a_further_one_is_initialised(both: Module) -> None:
    assert "Token carl is initialised" in initialise("--label", "carl")
    assert takes(both.choose("carl"), BOBS_PIN)


def test_by_the_number_of_its_slot_no_token_is_wiped_unnamed(both: Module) -> None:
    slot = str(both.choose("bob").slot_id)
    assert "initialised already" in initialise("--label", "carl", "--serial", slot, "--force")
    assert takes(both.choose("bob"), BOBS_PIN)


def test_two_that_are_alike_are_not_wiped(both: Module, tell: Tell) -> None:
    tell(serial=SERIAL, label="bob")
    said = initialise("--label", "bob", "--force", "--confirm", "bob")
    assert "2 tokens bob" in said
    tell(serial=SERIAL)
    assert takes(both.choose("alice"), PIN)

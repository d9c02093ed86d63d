"""PINs on a card that counts the tries and really locks: a fake PIV card, real OpenSC."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from carnet.errors import PinTriedError, TokenAwayError, TokenError
from carnet.secret_sources import PIN_VARIABLE, SO_PIN_VARIABLE
from carnet.token import pins, session, turns
from carnet.token.module import Module, Token
from carnet.token.session import open_public_session, open_session
from carnet.token.translation import translated
from lab.fake_piv import DEFAULT_PIN, DEFAULT_PUK
from lab.readers import OPENSC, Card, CardReaders
from provisioning import pins as provisioning_pins
from provisioning.cli import cli
from tests.token.helpers import DIGEST
from tests.token.test_presence import FIRST, insert, remove, swap

WRONG = "000000"
NEW = "135790"
VERIFY, CHANGE, UNBLOCK = "0020", "0024", "002c"
ANOTHER_PROGRAM = """
import sys
from pathlib import Path
from carnet.errors import TokenError
from carnet.token import turns
from carnet.token.module import load_module
from carnet.token.session import open_session
turns.WAIT_SECONDS = 0
try:
    with open_session(load_module(Path(sys.argv[1])).choose("alice"), sys.argv[2], writable=False):
        pass
except TokenError as error:
    print(error.sentence)
"""
LOGGED_IN = """
import sys
from pathlib import Path
from carnet.token.module import load_module
from carnet.token.session import open_session
with open_session(load_module(Path(sys.argv[1])).choose("alice"), sys.argv[2], writable=False):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def token(opensc: Module, cards: tuple[Card, Card]) -> Token:
    insert(cards[0])
    return opensc.choose("alice")


@pytest.fixture
def puk_allowed() -> Iterator[None]:
    """Before the module starts: that is when OpenSC reads its configuration."""
    with pins.opensc_takes_puk():
        yield


def log_in(token: Token, pin: str, *, allow_final_try: bool = False) -> None:
    with open_session(token, pin, writable=False, allow_final_try=allow_final_try):
        pass


def lock(token: Token) -> None:
    for _ in range(2):
        with pytest.raises(TokenError):
            log_in(token, WRONG)
    with pytest.raises(TokenError):
        log_in(token, WRONG, allow_final_try=True)


def test_the_final_try_is_kept_until_it_is_allowed(token: Token, cards: tuple[Card, Card]) -> None:
    with pytest.raises(TokenError, match="PIN is wrong; check it"):
        log_in(token, WRONG)
    assert cards[0].tries() == 2
    with pytest.raises(TokenError, match="wrong and one try is left"):
        log_in(token, WRONG)
    assert cards[0].tries() == 1
    with pytest.raises(TokenError, match="leaves one PIN try"):
        log_in(token, DEFAULT_PIN)
    assert cards[0].tries() == 1
    log_in(token, DEFAULT_PIN, allow_final_try=True)
    assert cards[0].tries() == 3


def test_the_try_that_locks_is_said_and_nothing_is_tried_after_it(
    token: Token, cards: tuple[Card, Card]
) -> None:
    for _ in range(2):
        with pytest.raises(TokenError):
            log_in(token, WRONG)
    with pytest.raises(TokenError, match="PIN is wrong and token alice is now locked"):
        log_in(token, WRONG, allow_final_try=True)
    with pytest.raises(TokenError, match="is locked; have the security officer"):
        log_in(token, DEFAULT_PIN, allow_final_try=True)
    assert cards[0].tries() == 0


def another_program() -> str:
    """Have another program try the wrong PIN; return what comes of it."""
    argv = [sys.executable, "-c", ANOTHER_PROGRAM, OPENSC, WRONG]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_no_other_program_tries_a_pin_between_a_look_at_the_tries_and_the_try(
    token: Token, cards: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that had both seen two tries left would lock the card; and each sees the other's."""
    log_in_, said = session._log_in, []

    def after_another(*arguments: Any, **options: Any) -> Any:
        said.append(another_program())
        return log_in_(*arguments, **options)

    monkeypatch.setattr(session, "_log_in", after_another)
    with pytest.raises(TokenError, match="PIN is wrong; check it"):
        log_in(token, WRONG)
    assert said[0].startswith("Another program is giving token alice")
    assert "one try is left" in another_program()
    with pytest.raises(TokenError, match="leaves one PIN try"):
        log_in(token.module.choose("alice"), DEFAULT_PIN)
    assert cards[0].tries() == len(said) == 1


def test_what_another_program_has_tried_since_is_seen_before_the_next_try(
    token: Token, cards: tuple[Card, Card]
) -> None:
    """OpenSC tells what it knew as it was started, until it is started again."""
    log_in(token, DEFAULT_PIN)
    with open_public_session(token), pytest.raises(TokenError, match="uses the module of"):
        log_in(token, DEFAULT_PIN)
    another_program()
    assert "one try is left" in another_program()
    with pytest.raises(TokenError, match="leaves one PIN try"):
        log_in(token, WRONG)
    assert cards[0].tries() == 1


def test_a_card_that_another_program_was_logged_in_to_is_asked_again_before_a_try(
    token: Token, cards: tuple[Card, Card]
) -> None:
    """It does not say meanwhile how many tries are left, and OpenSC takes that for all."""
    argv = [sys.executable, "-c", LOGGED_IN, OPENSC, DEFAULT_PIN]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == b"in\n"
        token = token.module.choose("alice")
        other.stdin.close()
    another_program()
    assert "one try is left" in another_program()
    with pytest.raises(TokenError, match="leaves one PIN try"):
        log_in(token, WRONG)
    assert cards[0].tries() == 1


def test_a_card_signs_in_one_slot_and_agrees_in_the_other(token: Token) -> None:
    with open_session(token, DEFAULT_PIN, writable=False) as session:
        held = session.find(ObjectClass.PRIVATE_KEY, {})
        (signs,) = (key for key in held if key[Attribute.SIGN])
        (agrees,) = (key for key in held if key[Attribute.DERIVE])
        assert len(signs.sign(DIGEST, mechanism=Mechanism.ECDSA)) == 64
        own = session.find(ObjectClass.PUBLIC_KEY, {Attribute.ID: agrees[Attribute.ID]})[0]
        point = own[Attribute.EC_POINT][2:]
        secret = agrees.derive_key(
            KeyType.GENERIC_SECRET,
            256,
            capabilities=MechanismFlag(0),
            mechanism=Mechanism.ECDH1_DERIVE,
            mechanism_param=(KDF.NULL, None, point),
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        assert len(secret[Attribute.VALUE]) == 32
        assert not hasattr(agrees, "sign")
        assert not hasattr(signs, "derive_key")


def test_changing_the_pin(token: Token, cards: tuple[Card, Card]) -> None:
    pins.change_pin(token, DEFAULT_PIN, NEW)
    log_in(token, NEW)
    with pytest.raises(TokenError, match="PIN is wrong"):
        pins.change_pin(token, DEFAULT_PIN, "246802")
    assert cards[0].tries() == 2


def test_a_pin_that_a_card_does_not_take_is_no_fault_of_the_card(
    token: Token, cards: tuple[Card, Card]
) -> None:
    with pytest.raises(TokenError, match="has characters that it does not take; give another"):
        pins.change_pin(token, DEFAULT_PIN, "abcdefgh")
    log_in(token, DEFAULT_PIN)
    assert cards[0].tries() == 3


@pytest.mark.usefixtures("puk_allowed")
def test_a_puk_that_can_be_none_is_called_a_puk(token: Token) -> None:
    lock(token)
    with pytest.raises(TokenError, match="PUK or the new PIN is too short"):
        pins.unblock_with_puk(token, "1", NEW)
    pins.unblock_with_puk(token, DEFAULT_PUK, NEW)


def test_the_puk_unblocks(
    puk_allowed: None, token: Token, cards: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(token)
    refusing, in_turn = pins._refusing, []

    def look(what: str) -> Any:
        in_turn.append(token.info.identity.mark in turns._turns)
        return refusing(what)

    monkeypatch.setattr(pins, "_refusing", look)
    pins.unblock_with_puk(token, DEFAULT_PUK, NEW)
    assert in_turn == [True]
    assert cards[0].tries() == 3
    log_in(token, NEW)


def test_a_wrong_puk(puk_allowed: None, token: Token, cards: tuple[Card, Card]) -> None:
    lock(token)
    with pytest.raises(TokenError, match="PUK is wrong"):
        pins.unblock_with_puk(token, "11111111", NEW)
    assert cards[0].tries() == 0
    pins.unblock_with_puk(token, DEFAULT_PUK, NEW)


@pytest.mark.usefixtures("puk_allowed")
def test_the_puk_is_kept_where_nothing_is_locked(token: Token, cards: tuple[Card, Card]) -> None:
    cards[0].seen()
    with pytest.raises(TokenError, match="is not locked"):
        pins.unblock_with_puk(token, DEFAULT_PUK, NEW)
    assert cards[0].tries() == 3
    assert not [each for each in cards[0].seen() if each[:4] in {CHANGE, UNBLOCK}]


def test_without_its_configuration_opensc_takes_no_puk(
    token: Token, cards: tuple[Card, Card]
) -> None:
    lock(token)
    with pytest.raises(TokenError, match="takes no PUK here"):
        pins.unblock_with_puk(token, DEFAULT_PUK, NEW)
    assert cards[0].tries() == 0


def test_a_card_without_so_pin_says_so(token: Token, cards: tuple[Card, Card]) -> None:
    lock(token)
    with pytest.raises(TokenError, match="knows no SO PIN"):
        pins.unblock_with_so_pin(token, DEFAULT_PUK, NEW)


FOR_GOOD = 1_000_000


@pytest.mark.parametrize(("count", "then"), [(0, "is as it was"), (1, "try the new PIN first")])
def test_a_card_pulled_while_its_pin_is_changed_is_called_that(
    token: Token, cards: tuple[Card, Card], count: int, then: str
) -> None:
    """It takes the command, and leaves before it answers."""
    pins.change_pin(token, DEFAULT_PIN, NEW)
    cards[0].seen()
    pins.change_pin(token, NEW, DEFAULT_PIN)
    commands = [each[:4] for each in cards[0].seen()]
    at = (commands.index(VERIFY), commands.index(CHANGE))[count]
    cards[0].leave_after(at)
    try:
        with pytest.raises(TokenError, match=f"alice was pulled out, in the middle; .*{then}"):
            pins.change_pin(token, DEFAULT_PIN, NEW)
    finally:
        cards[0].leave_after(FOR_GOOD)


@pytest.mark.usefixtures("puk_allowed")
@pytest.mark.parametrize(
    ("unblocking", "then"),
    [(False, "its PIN is as it was"), (True, "try the new PIN, which it")],
    ids=["as it is read", "as it is unblocked"],
)
def test_a_card_pulled_while_it_is_unblocked_is_called_that(
    token: Token, cards: tuple[Card, Card], unblocking: bool, then: str
) -> None:
    """OpenSC does not say at which command: so once it is at it the new PIN may be the card's."""
    lock(token)
    token = token.module.choose("alice")
    cards[0].seen()
    pins.unblock_with_puk(token, DEFAULT_PUK, NEW)
    count = [each[:4] for each in cards[0].seen()].index(UNBLOCK)
    assert count > 0
    lock(token)
    token = token.module.choose("alice")
    cards[0].leave_after(count if unblocking else 0)
    try:
        with pytest.raises(TokenError, match=f"alice was pulled out, .*{then}"):
            pins.unblock_with_puk(token, DEFAULT_PUK, NEW)
    finally:
        cards[0].leave_after(FOR_GOOD)


def test_a_card_pulled_before_it_judged_the_pin_aloud_is_not_known_to_have_taken_it(
    token: Token, cards: tuple[Card, Card]
) -> None:
    cards[0].leave_unsaid()
    with pytest.raises(TokenError) as caught:
        log_in(token, WRONG)
    assert caught.value.pin_given
    assert not isinstance(caught.value, PinTriedError)
    assert cards[0].tries() == 2


@pytest.mark.parametrize("command", ["change-pin", "unblock"])
def test_no_pin_and_no_puk_is_given_to_another_card_that_came_while_they_were_typed(
    opensc: Module,
    pcscd: CardReaders,
    cards: tuple[Card, Card],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    if command == "unblock":
        lock(opensc.choose("alice"))

    def read_new_pin(*_: Any, **__: Any) -> str:
        swap(pcscd, cards[0])
        cards[0].seen()
        return NEW

    tries = cards[0].tries()

    monkeypatch.setattr(provisioning_pins, "_read_new_pin", read_new_pin)
    by_puk = ["--puk"] if command == "unblock" else []
    given = {PIN_VARIABLE: WRONG, SO_PIN_VARIABLE: DEFAULT_PUK}
    done = CliRunner().invoke(cli, [command, *by_puk, "--module", OPENSC], env=given)
    assert cards[0].tries() == tries
    assert {each[:4] for each in cards[0].seen()}.isdisjoint({CHANGE, UNBLOCK})
    assert isinstance(done.exception, TokenAwayError)
    assert "There is no token alice" in done.exception.sentence


def change(token: Token, pin: str) -> None:
    pins.change_pin(token, pin, NEW)


@pytest.mark.parametrize("use", [log_in, change])
def test_a_wrong_pin_is_called_that_though_the_card_is_pulled_at_once(
    token: Token, cards: tuple[Card, Card], use: Callable[[Token, str], None]
) -> None:
    """It is one try less, and whoever waits for the card must not try it again."""
    with pytest.raises(PinTriedError):
        use(token, WRONG)
    cards[0].leave_when_wrong()
    with pytest.raises(PinTriedError, match="PIN is wrong and one try is left"):
        use(token, WRONG)
    assert cards[0].tries() == 1


@pytest.mark.usefixtures("puk_allowed")
def test_a_wrong_puk_is_called_that_though_the_card_is_pulled_at_once(
    token: Token, cards: tuple[Card, Card]
) -> None:
    lock(token)
    cards[0].leave_when_wrong()
    with pytest.raises(PinTriedError, match="PUK is wrong"):
        pins.unblock_with_puk(token, "11111111", NEW)


def test_a_session_on_a_card_that_was_pulled_is_over(
    token: Token, cards: tuple[Card, Card]
) -> None:
    with open_session(token, DEFAULT_PIN, writable=False) as session:
        (signs,) = (k for k in session.find(ObjectClass.PRIVATE_KEY, {}) if k[Attribute.SIGN])
        remove(cards[0])
        with pytest.raises(TokenError, match="The token is gone"), translated():
            signs.sign(DIGEST, mechanism=Mechanism.ECDSA)
    insert(cards[0])
    with pytest.raises(TokenError, match="The token is gone"), translated():
        signs.sign(DIGEST, mechanism=Mechanism.ECDSA)
    log_in(token.module.choose("alice"), DEFAULT_PIN)
    assert cards[0].tries() == 3

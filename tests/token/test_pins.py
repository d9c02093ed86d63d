"""Changing PINs and unblocking on SoftHSM2, which has an SO PIN and locks nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from carnet.errors import PinRefusedError, PinTriedError, TokenAwayError, TokenError
from carnet.token import initialise, pins, turns
from carnet.token.initialise import initialise_token
from carnet.token.module import Token, TokenInfo
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import open_session
from tests.token.helpers import PIN, SO_PIN, Pairing

NEW = "carnet-user-0042"


def log_in(token: Token, pin: str) -> None:
    with open_session(token, pin, writable=False):
        pass


def test_the_user_changes_the_pin(token: Token) -> None:
    pins.change_pin(token, PIN, NEW)
    log_in(token, NEW)
    with pytest.raises(TokenError, match="PIN is wrong"):
        log_in(token, PIN)


def test_the_old_pin_must_be_right(token: Token) -> None:
    with pytest.raises(TokenError, match="PIN is wrong"):
        pins.change_pin(token, NEW, NEW)
    log_in(token, PIN)


@pytest.mark.parametrize("new", ["1", "x" * 300])
def test_a_pin_that_the_token_does_not_take_leaves_the_old_one(token: Token, new: str) -> None:
    with pytest.raises(TokenError, match="too short or too long"):
        pins.change_pin(token, PIN, new)
    with pytest.raises(TokenError, match="new PIN is too short or too long"):
        pins.unblock_with_so_pin(token, SO_PIN, new)
    log_in(token, PIN)


@pytest.mark.parametrize(
    ("final", "said"),
    [(False, "was gone before it told how many tries"), (True, "token traveller is now locked")],
)
def test_a_wrong_pin_is_said_where_the_token_is_gone_by_then(
    token: Token, monkeypatch: pytest.MonkeyPatch, final: bool, said: str
) -> None:
    told = [replace(token.info, pin_final_try=final)]

    def tell(_: Token) -> TokenInfo:
        if not told:
            raise TokenAwayError("The token is gone; insert it again.")
        return told.pop()

    monkeypatch.setattr(Token, "info", property(tell))
    with (
        pytest.raises(PinTriedError, match=f"The PIN is wrong.*{said}"),
        open_session(token, NEW, writable=False, allow_final_try=final),
    ):
        pass


def test_the_so_pin_gives_a_new_pin(token: Token) -> None:
    pins.unblock_with_so_pin(token, SO_PIN, NEW)
    log_in(token, NEW)
    with pytest.raises(TokenError, match="PIN is wrong"):
        log_in(token, PIN)


def test_a_wrong_so_pin(token: Token) -> None:
    with pytest.raises(TokenError, match="SO PIN is wrong"):
        pins.unblock_with_so_pin(token, PIN, NEW)
    log_in(token, PIN)


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have tokens tell more of themselves: SoftHSM2 counts no tries."""
    real = Token.info.fget
    assert real is not None

    def tell(**more: bool) -> None:
        monkeypatch.setattr(Token, "info", property(lambda token: replace(real(token), **more)))

    return tell


def test_the_final_try_of_the_so_pin_is_kept_until_it_is_allowed(
    token: Token, telling: Callable[..., None]
) -> None:
    telling(so_pin_final_try=True)
    for change in (pins.unblock_with_so_pin, pins.change_so_pin):
        with pytest.raises(TokenError, match="one try of the SO PIN"):
            change(token, SO_PIN, NEW)
    pins.unblock_with_so_pin(token, SO_PIN, NEW, allow_final_try=True)
    log_in(token, NEW)


def test_wiping_a_token_keeps_the_final_try_of_the_so_pin_too(
    token: Token, telling: Callable[..., None]
) -> None:
    again = {"label": "traveller", "so_pin": SO_PIN, "pin": NEW, "force": True}
    telling(so_pin_final_try=True)
    with pytest.raises(PinRefusedError, match="one try of the SO PIN"):
        initialise_token(token.module, **again)
    log_in(token, PIN)
    initialise_token(token.module, **again, allow_final_try=True)
    log_in(token, NEW)


def test_a_locked_so_pin_is_not_tried(token: Token, telling: Callable[..., None]) -> None:
    telling(so_pin_locked=True)
    with pytest.raises(TokenError, match="is locked, and nothing unblocks that"):
        pins.unblock_with_so_pin(token, SO_PIN, NEW, allow_final_try=True)
    log_in(token, PIN)


def test_the_so_pin_is_changed(token: Token) -> None:
    pins.change_so_pin(token, SO_PIN, NEW)
    with pytest.raises(TokenError, match="SO PIN is wrong"):
        pins.unblock_with_so_pin(token, SO_PIN, NEW)
    pins.unblock_with_so_pin(token, NEW, PIN)
    log_in(token, PIN)


def test_no_other_program_gives_a_pin_while_one_is_changed_or_set(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was judged: the old PIN is given a second time as the new one is set."""
    monkeypatch.setattr(turns, "may_lock", lambda _: True)
    in_turn = []

    def looking_before(as_it_was: Callable[..., Any]) -> Callable[..., Any]:
        def looking(*given: Any) -> Any:
            in_turn.append(token.info.identity.mark in turns._turns)
            return as_it_was(*given)

        return looking

    monkeypatch.setattr(pins, "_refusing", looking_before(pins._refusing))
    monkeypatch.setattr(initialise, "_init_token", looking_before(initialise._init_token))
    pins.change_pin(token, PIN, NEW)
    pins.change_so_pin(token, SO_PIN, NEW)
    pins.unblock_with_so_pin(token, NEW, PIN)
    initialise_token(token.module, label="traveller", so_pin=NEW, pin=PIN, force=True)
    assert in_turn == [True] * 4
    assert not turns._turns


def test_a_token_that_locks_nothing_takes_no_puk(token: Token) -> None:
    with pytest.raises(TokenError, match="is not locked"):
        pins.unblock_with_puk(token, SO_PIN, NEW)


def test_key_pairs_outlive_a_new_pin(pairing: Pairing) -> None:
    key_id = pairing.share(0)
    traveller = pairing.traveller.token
    pairing.traveller.raw.close()
    pins.unblock_with_so_pin(traveller, SO_PIN, NEW)
    with open_session(traveller, NEW, writable=True) as session:
        assert OneTimeKeys(session).holds(key_id)

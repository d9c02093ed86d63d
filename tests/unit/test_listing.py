"""What `carnet tokens` makes of tokens that come, go and fail while they are listed."""

from types import SimpleNamespace

import pkcs11
import pytest

from carnet.errors import TokenAwayError, TokenError
from carnet.token.cryptoki import steady
from token_client import tokens
from token_client.config import ClientConfig


class FailingToken:
    slot_name = "Reader 1"

    def __init__(self, error):
        self.error = error

    @property
    def info(self):
        raise self.error


class GoodToken:
    info = SimpleNamespace(initialised=True, login_required=True)


@pytest.fixture
def present(monkeypatch):
    """Have the module list these tokens, of which a good one reads as "alice"."""

    def plug(*listed):
        module = SimpleNamespace(present=lambda: list(listed))
        monkeypatch.setattr(tokens, "load", lambda _: module)
        monkeypatch.setattr(tokens, "read_facts", lambda token, _: "alice" if token.info else None)

    return plug


def scripted(*outcomes):
    """Return what lists slots as python-pkcs11 did, or raised, one time after the other."""
    left = list(outcomes)

    def list_once():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return [SimpleNamespace(slot_id=number) for number in outcome]

    return list_once


TOO_SMALL = pkcs11.PKCS11Error("Buffer was too small. Should never see this.")


def test_a_token_that_comes_while_slots_are_listed_has_them_listed_again():
    assert [slot.slot_id for slot in steady(scripted(TOO_SMALL, TOO_SMALL, [0, 1]))] == [0, 1]


def test_a_token_that_goes_while_slots_are_listed_doubles_no_other():
    assert [slot.slot_id for slot in steady(scripted([0, 0]))] == [0]


@pytest.mark.parametrize("error", [TOO_SMALL, pkcs11.DeviceError()])
def test_what_fails_for_good_is_an_error(error):
    with pytest.raises(type(error)):
        steady(scripted(*[error] * 5))


def listed():
    told = []
    return tokens.list_tokens(ClientConfig(), told.append), told


def test_one_that_is_pulled_meanwhile_is_left_out(present):
    present(FailingToken(TokenAwayError("The token is gone.")), GoodToken())
    assert listed() == (["alice"], [])


def test_one_that_fails_is_told_of_and_hides_no_other(present):
    present(FailingToken(TokenError("The token failed; replace it.")), GoodToken())
    said = "The token in Reader 1 cannot be listed: The token failed; replace it."
    assert listed() == (["alice"], [said])

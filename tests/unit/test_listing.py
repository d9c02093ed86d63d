"""What `carnet tokens` makes of tokens that come, go and fail while they are listed."""

from types import SimpleNamespace

import pytest

from carnet.errors import TokenAwayError, TokenError
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

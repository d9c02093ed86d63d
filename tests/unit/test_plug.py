"""What `carnet connect` makes of a token that fails, before its work is done and after."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from carnet.errors import TokenError
from token_client import plugging
from token_client.plugging import Plug


@pytest.fixture
def plug(monkeypatch):
    @contextmanager
    def failing_at_the_logout(*_):
        yield "booklet"
        raise TokenError("The token failed at the logout; insert it again.")

    monkeypatch.setattr(plugging, "open_booklet", failing_at_the_logout)
    monkeypatch.setattr(plugging, "load_module", lambda _: None)
    made = object.__new__(Plug)
    made._lookout = SimpleNamespace(
        look=lambda: plugging.Presence.HERE, reader=None, token="token", alike=False
    )
    made._config = made._path = None
    return made


def test_a_tunnel_that_stands_is_not_lost_to_a_token_that_fails_at_the_logout(plug):
    assert plug.use(None, lambda booklet: f"connected by {booklet}") == "connected by booklet"


def test_a_token_that_fails_before_is_an_error(plug):
    def fail(_):
        raise TokenError("The token failed; insert it again.")

    with pytest.raises(TokenError, match="The token failed; insert"):
        plug.use(None, fail)

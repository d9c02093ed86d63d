"""What `carnet connect` makes of a token that fails, before its work is done and after."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from carnet.errors import TokenError
from carnet.token.identity import Identity
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
    made._pin_taken = False
    return made


def test_a_tunnel_that_stands_is_not_lost_to_a_token_that_fails_at_the_logout(plug):
    assert plug.use(None, lambda booklet: f"connected by {booklet}") == "connected by booklet"


def test_a_token_that_fails_before_is_an_error(plug):
    def fail(_):
        raise TokenError("The token failed; insert it again.")

    with pytest.raises(TokenError, match="The token failed; insert"):
        plug.use(None, fail)


@pytest.fixture
def pulled_out(plug, monkeypatch):
    """A token that is pulled out at its first login, and back at once."""
    looks = []
    plug._lookout.look = lambda: looks.pop() if looks else plugging.Presence.HERE
    plug._wait, plug.identity = True, Identity("1", "alice")
    plug._tell = plug._pulled = lambda _: None
    monkeypatch.setattr(plugging, "wait_for_token", lambda *_: None)
    logins = []

    @contextmanager
    def failing_at_first(*_):
        logins.append("login")
        if len(logins) == 1:
            failure = TokenError("The token is gone; insert it again.")
            failure.pin_given = plug.pin_given
            looks.append(plugging.Presence.GONE)
            raise failure
        yield "booklet"

    monkeypatch.setattr(plugging, "open_booklet", failing_at_first)
    plug.logins, plug.looks = logins, looks
    return plug


def test_a_pin_that_may_have_been_wrong_is_not_tried_again(pulled_out):
    pulled_out.pin_given = True
    with pytest.raises(TokenError, match="did not say whether that is right"):
        pulled_out.use(None, lambda booklet: booklet)
    assert pulled_out.logins == ["login"]


def test_a_pin_that_was_not_given_or_was_right_is_tried(pulled_out):
    pulled_out.pin_given = False
    assert pulled_out.use(None, lambda booklet: booklet) == "booklet"
    pulled_out.logins.clear()
    pulled_out.pin_given = True
    assert pulled_out.use(None, lambda booklet: booklet) == "booklet"


def test_a_pin_that_was_right_is_tried_once_more_and_not_for_ever(pulled_out, monkeypatch):
    pulled_out.pin_given = True
    pulled_out._pin_taken = True
    logins = []

    def failing(*_):
        logins.append("login")
        assert len(logins) < 4
        failure = TokenError("The token is gone; insert it again.")
        failure.pin_given = True
        pulled_out.looks.append(plugging.Presence.GONE)
        raise failure

    monkeypatch.setattr(plugging, "open_booklet", failing)
    with pytest.raises(TokenError, match="did not say whether that is right"):
        pulled_out.use(None, lambda booklet: booklet)
    assert len(logins) == 2

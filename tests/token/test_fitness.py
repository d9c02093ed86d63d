"""What lets keys out is found, also where it keeps those that come to be in another way."""

from typing import Any

import pytest
from pkcs11 import Attribute, ObjectClass

from carnet.token import keys
from carnet.token.fitness import ways_out
from carnet.token.session import TokenSession
from carnet.token.trials import copied, generated, unwrapped
from tests.token.leaking import copies_that_leave


def everything_of(session: TokenSession) -> list[Any]:
    classes = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY, ObjectClass.SECRET_KEY)
    return [found for each in classes for found in session.find(each, {})]


def test_a_fit_token_is_fit_on_every_way(session: TokenSession) -> None:
    assert ways_out(session, [keys.P256], generated, copied, unwrapped) == []
    assert everything_of(session) == []


def test_copies_that_leave_are_found_by_copying(
    session: TokenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies_that_leave(monkeypatch)
    assert ways_out(session, [keys.P256]) == []
    assert "wrapping it" in ways_out(session, [keys.P256], copied)
    assert everything_of(session) == []


def test_what_is_unwrapped_and_leaves_is_found(
    session: TokenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = keys.private_template

    def loose(*arguments: Any) -> dict[Attribute, Any]:
        return real(*arguments) | {Attribute.EXTRACTABLE: True}

    with monkeypatch.context() as patch:
        patch.setattr(keys, "private_template", loose)
        assert "wrapping it" in ways_out(session, [keys.P256], unwrapped)
    assert everything_of(session) == []

import ctypes
import gc
import inspect
import linecache
import sys
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Thread
from types import FrameType
from typing import Any

import pkcs11
import pytest
from msgspec.structs import replace

from carnet.errors import PinRefusedError, TokenAwayError, TokenError
from carnet.token import session as session_module
from carnet.token.cryptoki import Cryptoki, _TokenInfo
from carnet.token.data import write_data
from carnet.token.module import Module, Token
from carnet.token.session import (
    _Search,
    check_pin_state,
    open_public_session,
    open_session,
    wrong_pin,
)
from carnet.token.translation import translated
from tests.token.helpers import PIN, SO_PIN
from tests.unit.examples import INFO

WRONG = "wrong-pin-99"


def log_in(token: Token, pin: str | None) -> None:
    with open_session(token, pin, writable=False):
        pass


def test_a_wrong_pin_is_tried_once_and_said_so(token: Token) -> None:
    assert not token.info.pin_count_low
    with pytest.raises(TokenError, match="check it and try token traveller again") as caught:
        log_in(token, WRONG)
    assert WRONG not in repr(caught.value) + repr(caught.value.__cause__)
    assert token.info.pin_count_low
    log_in(token, PIN)
    assert not token.info.pin_count_low


@pytest.mark.parametrize("pin", ["", None])
def test_no_pin_is_no_try(token: Token, pin: str | None) -> None:
    with pytest.raises(TokenError, match="wants a PIN"):
        log_in(token, pin)
    assert not token.info.pin_count_low


@pytest.mark.parametrize("pin", ["x" * 256, "é" * 128])
def test_a_pin_longer_than_any_of_the_token_is_no_try(token: Token, pin: str) -> None:
    with pytest.raises(PinRefusedError, match="longer than any of token traveller"):
        log_in(token, pin)
    assert not token.info.pin_count_low


@pytest.mark.parametrize("told", [0, ctypes.c_ulong(-1).value])
def test_where_a_token_does_not_tell_how_long_its_pin_is_every_pin_is_tried(
    token: Token, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    info = _TokenInfo(longest_pin=told)
    monkeypatch.setattr(Cryptoki, "_token_info", lambda *_: info)
    assert token.longest_pin is None
    log_in(token, PIN)


def test_a_token_without_pin(module: Module) -> None:
    module.library.init_token(module.present()[0].slot_id, SO_PIN, "bare")
    with pytest.raises(TokenError, match="bare has no PIN yet"):
        log_in(module.choose("bare"), PIN)


def test_the_final_try_is_left_alone_unless_allowed() -> None:
    final = replace(INFO, pin_count_low=True, pin_final_try=True)
    with pytest.raises(TokenError, match="leaves one PIN try"):
        check_pin_state(final, allow_final_try=False)
    check_pin_state(final, allow_final_try=True)
    check_pin_state(INFO, allow_final_try=False)


def test_a_locked_pin_is_never_tried() -> None:
    with pytest.raises(TokenError, match="is locked"):
        check_pin_state(replace(INFO, pin_locked=True), allow_final_try=True)


def test_a_wrong_pin_says_how_near_the_lock_is() -> None:
    assert "one try is left" in wrong_pin(replace(INFO, pin_final_try=True))
    assert "now locked" in wrong_pin(replace(INFO, pin_locked=True, pin_final_try=True))


def test_a_second_login_is_refused_and_leaves_the_first(token: Token) -> None:
    with open_session(token, PIN, writable=True) as session:
        with pytest.raises(TokenError, match="logged in to the token already") as refused:
            log_in(token, PIN)
        assert not refused.value.pin_given  # to the token
        write_data(session, "label", b"value", private=True)


def test_login_ends_with_the_session(token: Token) -> None:
    log_in(token, PIN)
    with (
        open_public_session(token, writable=True) as session,
        pytest.raises(TokenError, match="wants a PIN"),
    ):
        write_data(session, "label", b"value", private=True)


@pytest.mark.parametrize("public", [True, False])
def test_a_token_that_is_gone_is_not_said_to_hold_nothing(
    token: Token, directory: Path, public: bool
) -> None:
    """SoftHSM2 whose files are gone finds nothing, and reports no error."""
    files = directory / "softhsm" / "tokens"
    opened = open_public_session(token) if public else open_session(token, PIN, writable=True)
    with opened as session:
        assert session.find(pkcs11.ObjectClass.DATA, {}) == []
        files.rename(files.with_name("away"))
        with pytest.raises(TokenAwayError):
            session.find(pkcs11.ObjectClass.DATA, {})
        with pytest.raises(TokenAwayError):
            session.check()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_session_that_ended_blocks_nobody(token: Token) -> None:
    with open_public_session(token) as session:
        pass
    with pytest.raises(TokenError, match="insert it again") as caught:
        session.find(pkcs11.ObjectClass.DATA, {})
    assert caught.value.__cause__
    failures: Queue[TokenError] = Queue()

    def search() -> None:
        try:
            session.find(pkcs11.ObjectClass.DATA, {})
        except TokenError as error:
            failures.put(error)

    Thread(target=search, daemon=True).start()
    assert failures.get(timeout=20)


def interrupt_once_begun(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
    """Trace a search; interrupt it where it has just begun at the token."""
    if frame.f_code is not vars(_Search)["__enter__"].__code__:
        return None
    line = linecache.getline(session_module.__file__, frame.f_lineno)
    if event == "line" and line.strip().startswith("return self"):
        raise KeyboardInterrupt
    return interrupt_once_begun


def test_a_search_that_is_interrupted_as_it_begins_is_over(
    token: Token, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_public_session(token) as session:
        before = sys.gettrace()
        sys.settrace(interrupt_once_begun)
        try:
            with pytest.raises(KeyboardInterrupt) as caught:
                session.find(pkcs11.ObjectClass.DATA, {})
        finally:
            sys.settrace(before)
        assert session.find(pkcs11.ObjectClass.DATA, {}) == []
    del caught
    gc.collect()
    assert capfd.readouterr() == ("", "")


PKCS11_ERRORS = [
    error
    for error in vars(pkcs11.exceptions).values()
    if inspect.isclass(error) and issubclass(error, pkcs11.PKCS11Error)
]


@pytest.mark.parametrize("error", PKCS11_ERRORS)
def test_every_error_is_one_sentence(error: type[pkcs11.PKCS11Error]) -> None:
    with pytest.raises(TokenError) as caught, translated():
        raise error
    assert caught.value.sentence.endswith(".")
    assert ";" in caught.value.sentence
    assert "{" not in caught.value.sentence

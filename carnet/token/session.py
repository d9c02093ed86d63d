"""Sessions on a token, with the PIN and without."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date, datetime
from typing import Any, Self

import pkcs11
from msgspec.structs import replace
from pkcs11 import Attribute, ObjectClass, _pkcs11
from pkcs11.attributes import AttributeMapper, handle_date, handle_str
from pkcs11.types import PROTECTED_AUTH

from carnet.errors import (
    FinalTryError,
    PinRefusedError,
    PinTriedError,
    TokenAwayError,
    TokenError,
)
from carnet.token.module import Token, TokenInfo
from carnet.token.profiles import may_lock
from carnet.token.translation import GONE, tells_nothing_of_a_pin, translated
from carnet.token.turns import trying

_BATCH = 1
"""Objects that a search fetches at once: the rest of a batch is lost with one that is gone."""


_CLASSES = (
    ObjectClass.DATA,
    ObjectClass.CERTIFICATE,
    ObjectClass.PUBLIC_KEY,
    ObjectClass.PRIVATE_KEY,
    ObjectClass.SECRET_KEY,
)


class _Search(_pkcs11.SearchIter):  # type: ignore[name-defined, misc]  # not in its stubs
    """A search that gives the session free when it cannot begin, or is interrupted as it does.

    python-pkcs11's own would keep the session's lock until it is collected, then print
    a traceback.
    """

    def __enter__(self) -> Self:
        try:
            super().__enter__()
            return self  # noqa: TRY300  an interrupt is heard here, too
        except pkcs11.PKCS11Error:
            _pkcs11.OperationContext._finalize(self)  # type: ignore[attr-defined]  # noqa: SLF001
            raise
        except BaseException:
            # By then it may have begun at the token, or not.
            with suppress(pkcs11.PKCS11Error):
                self._finalize()
            raise


class TokenSession:
    """An open session on a token; threads may share it.

    What is done on `raw`, python-pkcs11's session, or on its objects is done inside
    `translated()`.
    """

    def __init__(self, token: Token, raw: pkcs11.Session, *, logged_in: bool) -> None:
        self.token = token
        self.raw = raw
        self.logged_in = logged_in
        """Whether it was opened with a PIN."""
        self.identity = token.info.identity
        """Of the token, as it was when the session began."""

    def find(self, object_class: ObjectClass, template: dict[Attribute, Any]) -> list[Any]:
        """Return the objects of a class that have all of the template's attributes.

        Always by class: one damaged object makes an unfiltered search fail. What
        another session destroys meanwhile is left out. Raises TokenError.
        """
        attributes = {Attribute.CLASS: object_class, **template}
        found: list[Any] = []
        count = 0
        search = _Search(self.raw, attributes, _BATCH)
        with self.token.module.undisturbed(), translated(), search as batches:
            for batch in batches:
                count += 1
                with suppress(pkcs11.ObjectHandleInvalid):
                    found += batch
        if not found or len(found) < count:
            self.check()
        return found

    def count(self) -> int:
        """Return how many objects of every class the session sees; raises TokenError."""
        return sum(len(self.find(each, {})) for each in _CLASSES)

    def check(self) -> None:
        """Raise TokenAwayError unless the session and its token are as they were opened.

        Before it is believed that an object is not there: SoftHSM2, when its files have
        gone, finds nothing and calls the handles of all objects invalid; so does any
        module, of private objects, once something else has logged out.
        """
        try:
            with translated():
                there = self.identity.may_be(self.token.info.identity)
                handle = self.raw.handle  # type: ignore[attr-defined]  # not in its stubs
                logged_in = self.token.module.library.is_logged_in(handle)
        except TokenError as error:
            raise TokenAwayError(error.sentence) from error
        if not there:
            raise TokenAwayError("Another token is in the slot; insert the first one again.")
        if logged_in < self.logged_in:
            raise TokenAwayError("Something else logged out of the token; repeat the command.")


@contextmanager
def open_session(
    token: Token, pin: str | None, *, writable: bool, allow_final_try: bool = False
) -> Iterator[TokenSession]:
    """Log in to the token and yield a session; log out at the end.

    The PIN is tried once. Without one it is asked for by the reader's PIN pad, where
    there is one. A process has one login a token: threads share the session. Raises
    PinTriedError: PIN wrong, or of a length the token does not take; PinRefusedError, of a PIN
    that was not tried: locked, not set, longer than the token says that any is, or only one try
    left, unless `allow_final_try`. Raises TokenAwayError if the token is gone, or if another
    program is giving it the PIN; TokenError where nothing would keep others from that meanwhile.
    """
    info = token.info
    check_pin_state(info, allow_final_try=allow_final_try)
    credential = PROTECTED_AUTH if pin is None else pin
    if not (pin or (pin is None and info.protected_authentication_path)):
        raise TokenError(f"Token {info.label} wants a PIN; give it one.")
    if pin:
        _check_length(token, info, pin)
    with ExitStack() as login:
        with ExitStack() as turn:
            # At a pad a person is asked each time, and sees what comes of it.
            if pin is not None:
                info = turn.enter_context(trying(token, info))
                check_pin_state(info, allow_final_try=allow_final_try)
            login.enter_context(token.module.in_use())
            raw = login.enter_context(_closing(_log_in(token, info, credential, writable=writable)))
        yield TokenSession(token, raw, logged_in=True)


@contextmanager
def open_public_session(token: Token, *, writable: bool = False) -> Iterator[TokenSession]:
    """Yield a session without login, which sees the token's public objects.

    Raises TokenError if the token is gone.
    """
    with token.module.in_use():
        with translated():
            raw = token.handle.open(rw=writable, attribute_mapper=_mapper())
        with _closing(raw):
            yield TokenSession(token, raw, logged_in=False)


def check_pin_state(info: TokenInfo, *, allow_final_try: bool) -> None:
    """Raise PinRefusedError where trying a PIN is useless or could lock the token."""
    if info.pin_locked:
        raise PinRefusedError(
            f"The PIN of token {info.label} is locked; have the security officer unblock it."
        )
    if not info.pin_set:
        raise PinRefusedError(
            f"Token {info.label} has no PIN yet; have the security officer set one."
        )
    if info.pin_final_try and not allow_final_try:
        raise FinalTryError(
            f"Token {info.label} leaves one PIN try, and a wrong one locks it; "
            f"make sure of the PIN, then give it with --allow-final-try."
        )


def wrong_pin(info: TokenInfo) -> str:
    """Say that the PIN was wrong and what the token tells of the tries left."""
    if info.pin_locked:
        return (
            f"The PIN is wrong and token {info.label} is now locked; "
            f"have the security officer unblock it."
        )
    if info.pin_final_try:
        return f"The PIN is wrong and one try is left; the next wrong one locks {info.label}."
    if info.pin_count_low and may_lock(info):
        return f"The PIN is wrong; check it well, for too many wrong ones lock token {info.label}."
    return f"The PIN is wrong; check it and try token {info.label} again."


def _wrong_now(token: Token, before: TokenInfo) -> str:
    """Say that the PIN was wrong, also where the token is gone and tells nothing of the tries."""
    try:
        return wrong_pin(token.info)
    except TokenError:
        if before.pin_final_try:
            return wrong_pin(replace(before, pin_locked=True))
        return (
            f"The PIN is wrong, and token {before.label} was gone before it told how many tries "
            f"are left; insert it again, and see what `carnet tokens` says of its PIN before you "
            f"try another."
        )


def _check_length(token: Token, info: TokenInfo, pin: str) -> None:
    """Raise PinRefusedError for a PIN that is none of this token's, and would cost a try."""
    longest = token.longest_pin
    if longest is not None and len(pin.encode()) > longest:
        raise PinRefusedError(
            f"The PIN is longer than any of token {info.label} can be ({longest} bytes), and was "
            f"not tried; give the right one."
        )


def _log_in(token: Token, info: TokenInfo, credential: object, *, writable: bool) -> pkcs11.Session:
    """Try the PIN, on a token that told this of itself before."""
    handle = token.handle
    with _noted_if_unjudged(credential), translated():
        try:
            return handle.open(rw=writable, user_pin=credential, attribute_mapper=_mapper())
        except pkcs11.PinIncorrect as error:
            raise PinTriedError(_wrong_now(token, info)) from error
        except pkcs11.PinLocked as error:
            if info.pin_final_try:  # this very try locked it
                raise PinTriedError(wrong_pin(replace(info, pin_locked=True))) from error
            raise PinTriedError(
                f"Token {info.label} takes no PIN now, right or wrong, after too many wrong ones; "
                f"have the security officer unblock it, or wait for the end of its lockout where "
                f"it is a TPM."
            ) from error


@contextmanager
def _noted_if_unjudged(credential: object) -> Iterator[None]:
    """Let a TokenError tell that a PIN was given, of which the token has not said what it is.

    A PIN pad asks for it anew every time.
    """
    try:
        yield
    except PinRefusedError:
        raise
    except TokenError as error:
        untried = tells_nothing_of_a_pin(error.__cause__)
        error.pin_given = credential is not PROTECTED_AUTH and not untried
        raise


@contextmanager
def _closing(raw: pkcs11.Session) -> Iterator[pkcs11.Session]:
    try:
        yield raw
    finally:
        # A token that was pulled has ended the session itself.
        with translated(), suppress(*GONE):
            raw.close()


def _mapper() -> AttributeMapper:
    """Read what others may have written: labels not in UTF-8, dates that are none."""
    mapper = AttributeMapper()
    mapper.register_handler(
        Attribute.LABEL, handle_str[0], lambda raw: raw.decode(errors="replace")
    )
    mapper.register_handler(Attribute.END_DATE, handle_date[0], _date_or_none)
    return mapper


def _date_or_none(raw: bytes) -> date | None:
    try:
        return datetime.strptime(raw.decode("ascii"), "%Y%m%d").astimezone().date()
    except ValueError:
        return None

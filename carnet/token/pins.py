"""Changing a PIN, and unblocking one that is locked.

PKCS#11 knows two ways to a new PIN for who has forgotten the old one. A token with a
security officer of its own (SoftHSM2, SmartCard-HSM) takes her SO PIN (C_InitPIN). A
PIV card has a PUK instead, and OpenSC's module takes it in place of the old PIN, in a
session without login, where its configuration allows that (see unblock_with_puk).
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pkcs11

from carnet.errors import PinRefusedError, PinTriedError, TokenError
from carnet.token.module import Token, TokenInfo
from carnet.token.pulled import saying_if_pulled
from carnet.token.session import open_session
from carnet.token.translation import translated
from carnet.token.turns import trying, turn_of

_AS_IT_WAS = "its {} is as it was; insert it again and repeat the command."
_MAY_BE_CHANGED = (
    "insert it again, and try the new {0} first, which it may have taken already, then the old one."
)
_MAY_BE_UNBLOCKED = (
    "insert it again, and try the new PIN, which it may have taken already; if it is locked "
    "still, repeat the command."
)
_OPENSC_VARIABLE = "OPENSC_CONF"
_TAKE_PUK = """app opensc-pkcs11 {
    pkcs11 {
        user_pin_unblock_style = set_pin_in_unlogged_session;
    }
}
"""


def change_pin(token: Token, old: str, new: str, *, allow_final_try: bool = False) -> None:
    """Give the token another PIN (C_SetPIN by the user).

    The old one is tried once, as at a login. Raises TokenError as open_session() does,
    and if the token does not take the new one; the old one is right then as before.
    """
    with (
        saying_if_pulled(token, _AS_IT_WAS.format("PIN")) as pulled,
        turn_of(token.info),  # it is given the old one twice
        open_session(token, old, writable=True, allow_final_try=allow_final_try) as session,
        translated(),
    ):
        pulled.then = _MAY_BE_CHANGED.format("PIN")
        with _refusing("new PIN"):
            session.raw.set_pin(old, new)


def change_so_pin(token: Token, old: str, new: str, *, allow_final_try: bool = False) -> None:
    """Give the token another SO PIN; raises TokenError as unblock_with_so_pin() does."""
    with (
        saying_if_pulled(token, _AS_IT_WAS.format("SO PIN")) as pulled,
        _as_officer(token, old, allow_final_try=allow_final_try) as raw,
    ):
        pulled.then = _MAY_BE_CHANGED.format("SO PIN")
        with _refusing("new SO PIN"):
            raw.set_pin(old, new)


def unblock_with_so_pin(
    token: Token, so_pin: str, pin: str, *, allow_final_try: bool = False
) -> None:
    """Give a token a new PIN and all its tries, by the SO PIN (C_InitPIN).

    Key pairs stay. Raises PinRefusedError if the SO PIN is wrong or locked, or has only one
    try left, unless `allow_final_try`; TokenError if the token has none, or if it does not
    take the new PIN.
    """
    with (
        saying_if_pulled(token, _AS_IT_WAS.format("PIN")) as pulled,
        _as_officer(token, so_pin, allow_final_try=allow_final_try) as raw,
    ):
        pulled.then = _MAY_BE_UNBLOCKED
        with _refusing("new PIN"):
            raw.init_pin(pin)


def unblock_with_puk(token: Token, puk: str, pin: str) -> None:
    """Give a locked card a new PIN and all its tries, by its PUK.

    Only where the PIN is locked: elsewhere a module would take the PUK for a PIN, and
    use up a try of it. Raises TokenError if it is not locked, PinRefusedError if the
    PUK is wrong, or if the module does not take one.
    """
    with saying_if_pulled(token, _AS_IT_WAS.format("PIN")) as pulled, _trying(token) as info:
        _check_locked(info)
        with token.module.in_use(), translated(), token.handle.open(rw=True) as raw:
            pulled.then = _MAY_BE_UNBLOCKED
            _set_pin_by_puk(raw, info.label, puk, pin)


def _set_pin_by_puk(raw: pkcs11.Session, label: str, puk: str, pin: str) -> None:
    try:
        with _refusing("PUK or the new PIN"):
            raw.set_pin(puk, pin)
    except pkcs11.PinIncorrect as error:
        raise PinTriedError(
            f"The PUK is wrong; make sure of it, for too many wrong ones make "
            f"token {label} useless for ever."
        ) from error
    except pkcs11.PinLocked as error:
        raise PinTriedError(
            f"Token {label} takes no PUK here, or its PUK is locked too; "
            f"unblock it with its vendor's own tool."
        ) from error


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Say that what a token does not take for one is the wrong choice, and no fault of its own.

    OpenSC passes on what a PIV card says of letters, which is that the data are invalid.
    """
    try:
        yield
    except (pkcs11.PinLenRange, pkcs11.PinInvalid, pkcs11.DataInvalid) as error:
        raise TokenError(
            f"The {what} is too short or too long for this token, or has characters that it does "
            f"not take; give another, of 6 to 8 digits for a PIV card."
        ) from error


def check_so_pin_state(info: TokenInfo, *, allow_final_try: bool) -> None:
    """Raise PinRefusedError where trying an SO PIN is useless or could lock it."""
    if info.so_pin_locked:
        raise PinRefusedError(
            f"The SO PIN of token {info.label} is locked, and nothing unblocks that; "
            f"have the pairs revoked, and take a new token."
        )
    if info.so_pin_final_try and not allow_final_try:
        raise PinRefusedError(
            f"Token {info.label} leaves one try of the SO PIN, and a wrong one may make it "
            f"useless for ever; make sure of it, then give it with --allow-final-try."
        )


def check_locked(token: Token) -> None:
    """Raise TokenError unless the PIN is locked."""
    with saying_if_pulled(token, _AS_IT_WAS.format("PIN")):
        _check_locked(token.info)


def _check_locked(info: TokenInfo) -> None:
    if not info.pin_locked:
        raise TokenError(
            f"The PIN of token {info.label} is not locked; change it with the PIN that it has."
        )


@contextmanager
def opensc_takes_puk() -> Iterator[None]:
    """Have OpenSC's module, loaded in here, take a PUK; other modules do not care.

    It reads its configuration when it starts. One that the user named is left alone.
    """
    if _OPENSC_VARIABLE in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="carnet-") as directory:
        configuration = Path(directory) / "opensc.conf"
        configuration.write_text(_TAKE_PUK, encoding="ascii")
        os.environ[_OPENSC_VARIABLE] = str(configuration)
        try:
            yield
        finally:
            del os.environ[_OPENSC_VARIABLE]


def _trying(token: Token) -> AbstractContextManager[TokenInfo]:
    return trying(token, token.info)


@contextmanager
def _as_officer(token: Token, so_pin: str, *, allow_final_try: bool) -> Iterator[pkcs11.Session]:
    with _trying(token) as info, token.module.in_use(), translated():
        label = info.label
        check_so_pin_state(info, allow_final_try=allow_final_try)
        try:
            session = token.handle.open(rw=True, so_pin=so_pin)
        except pkcs11.PinIncorrect as error:
            raise PinTriedError(
                f"The SO PIN is wrong; make sure of it, for too many wrong ones make token {label} "
                f"useless for ever."
            ) from error
        except pkcs11.PinLocked as error:
            raise PinTriedError(
                f"Token {label} takes no SO PIN now, right or wrong; wait for the end of its "
                f"lockout where it is a TPM, and have the pairs of any other token revoked."
            ) from error
        except pkcs11.PKCS11Error as error:
            raise TokenError(
                f"Token {label} knows no SO PIN; a card that has a PUK is unblocked with --puk, "
                f"and a database of NSS's that has a PIN by nothing."
            ) from error
        with session as raw:
            yield raw

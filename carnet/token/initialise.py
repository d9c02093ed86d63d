"""Making a blank token one that holds key pairs: label, SO PIN, user PIN."""

from collections.abc import Iterator
from contextlib import contextmanager

import pkcs11

from carnet import crash
from carnet.errors import TokenError
from carnet.token.identity import Identity, called
from carnet.token.module import Module, Token, TokenInfo
from carnet.token.pins import check_so_pin_state
from carnet.token.translation import translated
from carnet.token.turns import trying


def initialise_token(
    module: Module,
    *,
    label: str,
    so_pin: str,
    pin: str,
    selector: str | Identity | None = None,
    force: bool = False,
    allow_final_try: bool = False,
) -> str:
    """Initialise a token, set its PIN and return its serial number.

    `selector` is a serial or slot number, or what a token to be wiped is known by; without it
    the first blank token is taken.
    `force` wipes a token that is initialised already, which wants its own SO PIN: the
    selected one, or the one of that label. One that has no PIN, since its initialising
    was cut off, is taken without it. Raises TokenError if no token may be taken, if a
    PIN does not suit it, or if a session is open on it; PinRefusedError if its SO PIN is
    locked, or has only one try left, unless `allow_final_try`.
    """
    token = _choose(module, label, selector, force=force)
    info = token.info
    if info.is_lost:
        raise TokenError(
            f"Token {info.label} can be initialised no more: that was cut off before, or its SO "
            f"PIN is locked; take another one."
        )
    _check_length(token, pin)
    with _may_be_tried(token, info, allow_final_try), module.in_use(), translated():
        _init_token(module, token, so_pin, label)
        crash.reach("token.initialised")
        with _as_officer(token, so_pin) as session:
            session.init_pin(pin)
        return token.info.serial


@contextmanager
def _may_be_tried(token: Token, info: TokenInfo, allow_final_try: bool) -> Iterator[None]:
    """Have the turn for a try of its SO PIN; a blank token has none."""
    if not info.initialised:
        yield
        return
    with trying(token, info) as now:
        check_so_pin_state(now, allow_final_try=allow_final_try)
        yield


def _check_length(token: Token, pin: str) -> None:
    """Raise TokenError for a PIN that the token would refuse once it is wiped."""
    longest = token.longest_pin
    if longest is not None and len(pin.encode()) > longest:
        raise TokenError(f"The PIN is longer than {longest} bytes; choose a shorter one.")


def _init_token(module: Module, token: Token, so_pin: str, label: str) -> None:
    try:
        module.library.init_token(token.slot_id, so_pin, label)
    except ValueError as error:
        raise TokenError(f"{label!r} is too long; choose a label of at most 32 bytes.") from error
    except pkcs11.PinIncorrect as error:
        if token.info.initialised:
            raise TokenError("The SO PIN is wrong; give the one the token has now.") from error
        raise TokenError("The token does not take this SO PIN; choose a longer one.") from error
    except pkcs11.GeneralError as error:
        if not token.info.initialised:
            raise
        raise TokenError(
            f"Token {token.info.label} could not be wiped (GeneralError), as no token of a TPM can "
            f"be through PKCS#11; delete it with its vendor's own tool, or take a blank one."
        ) from error


def _as_officer(token: Token, so_pin: str) -> pkcs11.Session:
    try:
        return token.handle.open(rw=True, so_pin=so_pin)
    except pkcs11.PinIncorrect as error:
        raise TokenError(
            "The token does not take the SO PIN that it was just initialised with, and has no PIN "
            "now; a database of NSS's keeps none, so make it with `certutil -N`."
        ) from error


def _choose(module: Module, label: str, selector: str | Identity | None, *, force: bool) -> Token:
    tokens = module.present()
    if selector is not None:
        return _selected(tokens, selector, force=force)
    same = [token for token in tokens if _may_be_meant(token.info, label)]
    if any(token.info.pin_set for token in same) and not force:
        raise TokenError(f"There is a token {label!r} already; choose another label, or force it.")
    blank = [token for token in tokens if not token.info.initialised]
    if len(same) > 1:
        raise TokenError(f"There are {len(same)} tokens {label!r}; choose one by serial number.")
    if not same and not blank:
        raise TokenError("No blank token was found; insert one, or choose one to be wiped.")
    return (same or blank)[0]


def _may_be_meant(info: TokenInfo, label: str) -> bool:
    return info.initialised and info.label == label and not info.is_lost


def _selected(tokens: list[Token], selector: str | Identity, *, force: bool) -> Token:
    selected = [token for token in tokens if _is_selected(token, selector)]
    named = called(selector)
    if not selected:
        raise TokenError(f"There is no token {named}; choose one by serial or slot number.")
    if len(selected) > 1:
        raise TokenError(f"There are {len(selected)} tokens {named}; choose one by slot number.")
    token = selected[0]
    if token.info.pin_set and not force:
        raise TokenError(
            f"Token {token.info.label} is initialised already; to wipe it, name its label or "
            f"serial number, and force it."
        )
    return token


def _is_selected(token: Token, selector: str | Identity) -> bool:
    info = token.info
    if isinstance(selector, Identity):
        return info.initialised and info.identity == selector
    return selector in (info.serial, str(token.slot_id))

"""PKCS#11 return codes as sentences for a person."""

from collections.abc import Iterator
from contextlib import contextmanager

import pkcs11

from carnet.errors import (
    PinRefusedError,
    PinTriedError,
    TokenAwayError,
    TokenCannotError,
    TokenError,
)
from carnet.token.cryptoki import NotInitializedError

_GONE = "The token is gone; insert it again and repeat the command."
GONE = (
    pkcs11.TokenNotPresent,
    pkcs11.TokenNotRecognised,
    pkcs11.DeviceRemoved,
    pkcs11.SlotIDInvalid,
    pkcs11.SessionClosed,
    pkcs11.SessionHandleInvalid,
)
"""What a module says of a token that was pulled, or that was and is back."""
_AWAY = (*GONE, pkcs11.DeviceError)
_CANNOT = (
    "The token cannot do this ({code}); take another key type, or a token that has "
    "such keys, their mechanisms and AES key wrap."
)
_UNABLE = (
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.FunctionNotSupported,
    pkcs11.DomainParamsInvalid,
)

_SENTENCES: dict[type[pkcs11.PKCS11Error], str] = {
    pkcs11.PinIncorrect: "The PIN is wrong; check it and repeat the command.",
    pkcs11.PinInvalid: "The token does not accept the characters of this PIN; choose another.",
    pkcs11.PinLenRange: "The PIN is too short or too long for this token; choose another.",
    pkcs11.PinTooWeak: "The token finds this PIN too weak; choose another.",
    pkcs11.PinExpired: "The PIN has expired; have the security officer set a new one.",
    pkcs11.FunctionCancelled: "This was cancelled at the reader's PIN pad; repeat the command.",
    pkcs11.PinLocked: "The PIN is locked; have the security officer unblock it.",
    pkcs11.UserPinNotInitialized: "The token has no PIN yet; have the security officer set one.",
    pkcs11.UserNotLoggedIn: "The token wants a PIN for this; log in to it first.",
    pkcs11.UserAlreadyLoggedIn: "This process is logged in to the token already; end that first.",
    pkcs11.AnotherUserAlreadyLoggedIn: "The security officer is logged in to the token; end that.",
    pkcs11.SessionExists: "The token is in use; close whatever uses it and repeat the command.",
    pkcs11.SessionCount: "The token has no session left; close other programs that use it.",
    **dict.fromkeys(GONE, _GONE),
    pkcs11.DeviceError: (
        "The reader or its card does not answer; end other programs that use it, "
        "or plug it in again."
    ),
    pkcs11.DeviceMemory: "The token is full; burn key pairs that are no longer needed.",
    pkcs11.TokenWriteProtected: "The token is write-protected; lift that and repeat the command.",
    **dict.fromkeys(_UNABLE, _CANNOT),
}
_NOT_STARTED = "The token's module was ended by something else; repeat the command."
_OTHERWISE = "The token failed ({code}); insert it again, and if that does not help, replace it."
_OF_STATE = frozenset(_SENTENCES.keys() - set(_UNABLE)) | {
    pkcs11.HostMemory,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.OperationActive,
}
"""What speaks of the state that token, login and session are in."""


_PIN_TRIED = (
    pkcs11.PinIncorrect,
    pkcs11.PinInvalid,
    pkcs11.PinLenRange,
    pkcs11.PinExpired,
    pkcs11.PinLocked,
)


_BEFORE_A_PIN = (
    pkcs11.AnotherUserAlreadyLoggedIn,
    pkcs11.SessionCount,
    pkcs11.SessionExists,
    pkcs11.TokenWriteProtected,
    pkcs11.UserAlreadyLoggedIn,
)


def sentence(error: pkcs11.PKCS11Error) -> str:
    """Say what a PKCS#11 error means and what to do next."""
    if _is_not_started(error):
        return _NOT_STARTED
    return _SENTENCES.get(type(error), _OTHERWISE).format(code=type(error).__name__)


def as_token_error(error: pkcs11.PKCS11Error) -> TokenError:
    """Return the TokenError that says what a PKCS#11 error means, of the kind it is."""
    said = sentence(error)
    if isinstance(error, _PIN_TRIED):
        return PinTriedError(said)
    if isinstance(error, pkcs11.UserPinNotInitialized):
        return PinRefusedError(said)
    if isinstance(error, _UNABLE):
        return TokenCannotError(said)
    away = isinstance(error, _AWAY) or _is_not_started(error)
    return TokenAwayError(said) if away else TokenError(said)


def tells_nothing_of_a_pin(error: BaseException | None) -> bool:
    """Tell whether a login failed before the token was asked for its view of the PIN."""
    return isinstance(error, _BEFORE_A_PIN) or (
        isinstance(error, pkcs11.PKCS11Error) and _is_not_started(error)
    )


def _is_not_started(error: pkcs11.PKCS11Error) -> bool:
    # python-pkcs11 says so in words, where it calls the module itself.
    told = type(error) is pkcs11.PKCS11Error and "not initialized" in str(error)
    return told or isinstance(error, NotInitializedError)


@contextmanager
def translated() -> Iterator[None]:
    """Let no PKCS#11 error out but as a TokenError of one sentence.

    The original stays chained to it; PKCS#11 errors carry a return code, never a
    PIN or a key.
    """
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise as_token_error(error) from error


def tells_of_token(error: pkcs11.PKCS11Error) -> bool:
    """Tell whether an error speaks of the token, not of the data that it was given."""
    return type(error) in _OF_STATE or isinstance(error, _UNABLE)


@contextmanager
def tried(what: str) -> Iterator[None]:
    """Say what the token does not do, if it fails at something that is tried on it.

    Raises TokenCannotError; errors of its state go on as they are.
    """
    try:
        yield
    except pkcs11.PKCS11Error as error:
        if type(error) in _OF_STATE:
            raise
        raise TokenCannotError(
            f"The token does not {what} ({type(error).__name__}); take another key type or "
            f"hash, or another token."
        ) from error

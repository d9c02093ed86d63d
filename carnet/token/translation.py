"""PKCS#11 return codes as sentences for a person."""

from collections.abc import Iterator
from contextlib import contextmanager

import pkcs11

from carnet.errors import TokenError

_GONE = "The token is gone; insert it again and repeat the command."
_CANNOT = "The token cannot do this ({code}); use a token that has EC keys, ECDH and AES key wrap."

_SENTENCES: dict[type[pkcs11.PKCS11Error], str] = {
    pkcs11.PinIncorrect: "The PIN is wrong; check it and repeat the command.",
    pkcs11.PinInvalid: "The token does not accept the characters of this PIN; choose another.",
    pkcs11.PinLenRange: "The PIN is too short or too long for this token; choose another.",
    pkcs11.PinTooWeak: "The token finds this PIN too weak; choose another.",
    pkcs11.PinExpired: "The PIN has expired; have the security officer set a new one.",
    pkcs11.PinLocked: "The PIN is locked; have the security officer unblock it.",
    pkcs11.UserPinNotInitialized: "The token has no PIN yet; have the security officer set one.",
    pkcs11.UserNotLoggedIn: "The token wants a PIN for this; log in to it first.",
    pkcs11.UserAlreadyLoggedIn: "This process is logged in to the token already; end that first.",
    pkcs11.AnotherUserAlreadyLoggedIn: "The security officer is logged in to the token; end that.",
    pkcs11.SessionExists: "The token is in use; close whatever uses it and repeat the command.",
    pkcs11.SessionCount: "The token has no session left; close other programs that use it.",
    pkcs11.TokenNotPresent: _GONE,
    pkcs11.TokenNotRecognised: _GONE,
    pkcs11.DeviceRemoved: _GONE,
    pkcs11.SlotIDInvalid: _GONE,
    pkcs11.SessionClosed: _GONE,
    pkcs11.SessionHandleInvalid: _GONE,
    pkcs11.DeviceMemory: "The token is full; burn key pairs that are no longer needed.",
    pkcs11.TokenWriteProtected: "The token is write-protected; lift that and repeat the command.",
    pkcs11.MechanismInvalid: _CANNOT,
    pkcs11.MechanismParamInvalid: _CANNOT,
    pkcs11.FunctionNotSupported: _CANNOT,
    pkcs11.DomainParamsInvalid: _CANNOT,
}
_OTHERWISE = "The token failed ({code}); insert it again, and if that does not help, replace it."


def sentence(error: pkcs11.PKCS11Error) -> str:
    """Say what a PKCS#11 error means and what to do next."""
    return _SENTENCES.get(type(error), _OTHERWISE).format(code=type(error).__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Let no PKCS#11 error out but as a TokenError of one sentence.

    The original stays chained to it; PKCS#11 errors carry a return code, never a
    PIN or a key.
    """
    try:
        yield
    except pkcs11.PKCS11Error as error:
        raise TokenError(sentence(error)) from error

"""Data objects on a token: the cover, and the security officer's public key.

A public one can be read without the PIN, and also replaced without it: what it holds
must prove itself by a signature. A private one can be neither read nor replaced
without the PIN. The two are told apart at every reading, since anybody who holds the
token can put a public object of any label beside a private one.
"""

from collections.abc import Callable
from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass

from carnet import crash
from carnet.errors import TokenCannotError, TokenError
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_APPLICATION = "carnet"
_TRIAL = "carnet trial"
_NO_SUCH_OBJECTS = (
    pkcs11.AttributeValueInvalid,
    pkcs11.AttributeTypeInvalid,
    pkcs11.TemplateInconsistent,
    pkcs11.FunctionNotSupported,
    pkcs11.TokenWriteProtected,
)


def read_data(session: TokenSession, label: str, *, private: bool) -> bytes | None:
    """Return the data object of that label; None if there is none.

    Raises TokenError if there are several that differ.
    """
    found = set(read_all_data(session, label, private=private))
    if len(found) > 1:
        raise TokenError(
            f"The token holds {label!r} more than once, and not the same; "
            f"have the security officer mint on it again."
        )
    return found.pop() if found else None


def read_all_data(session: TokenSession, label: str, *, private: bool) -> list[bytes]:
    """Return all data objects of that label, in no order; raises TokenError.

    There may be several: a writing was cut off, or somebody put one beside another. Who finds
    none looks again: a module that lists its objects while another process puts one in the place
    of another may see neither.
    """
    found = _find(session, label, private=private) or _find(session, label, private=private)
    with translated():
        return [bytes(each[Attribute.VALUE]) for each in found]


def write_data(
    session: TokenSession,
    label: str,
    value: bytes,
    *,
    private: bool,
    stands: Callable[[bytes], bool] = lambda _: False,
    sync: Callable[[TokenSession], None] = lambda _: None,
) -> None:
    """Store a data object in the place of any other of that label.

    Where one of these `stands`, nothing is written. No other is removed than those that
    were looked at, whatever somebody else writes meanwhile. `sync` has what is stored outlast a
    power cut: the new one before another is removed, and that.

    Needs a writable session. Raises TokenError, TokenCannotError on a token that keeps no
    such objects. Interrupted, it leaves the older and
    the newer one; the next writing removes both.
    """
    older = _find(session, label, private=private)
    with translated():
        if any(stands(bytes(one[Attribute.VALUE])) for one in older):
            return
    with session.token.module.undisturbed(), translated():
        _create(session, label, value, private=private)
        crash.reach(f"token.stored {label}")
        sync(session)
        for one in older:
            one.destroy()
        crash.reach(f"token.replaced {label}")
        sync(session)


def check_keeping(session: TokenSession) -> None:
    """Raise TokenCannotError unless the token keeps data objects, private and public ones.

    It is tried. Needs a writable session; raises TokenError too.
    """
    for private in (True, False):
        with session.token.module.undisturbed(), translated():
            _create(session, _TRIAL, b"tried", private=private)
            for one in _find(session, _TRIAL, private=private):
                one.destroy()


def _create(session: TokenSession, label: str, value: bytes, *, private: bool) -> None:
    try:
        session.raw.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: private,
                Attribute.APPLICATION: _APPLICATION,
                Attribute.LABEL: label,
                Attribute.VALUE: value,
            }
        )
    except _NO_SUCH_OBJECTS as error:
        kind = "private" if private else "public"
        raise TokenCannotError(
            f"Token {session.token.info.label} keeps no {kind} data objects "
            f"({type(error).__name__}); take another token."
        ) from error


def _find(session: TokenSession, label: str, *, private: bool) -> list[Any]:
    template = {
        Attribute.APPLICATION: _APPLICATION,
        Attribute.LABEL: label,
        Attribute.PRIVATE: private,
    }
    return session.find(ObjectClass.DATA, template)

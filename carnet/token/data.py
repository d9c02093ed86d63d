"""Data objects on a token: the cover, and the security officer's public key.

A public one can be read without the PIN, and also replaced without it: what it holds
must prove itself by a signature. A private one can be neither read nor replaced
without the PIN. The two are told apart at every reading, since anybody who holds the
token can put a public object of any label beside a private one.
"""

from typing import Any

from pkcs11 import Attribute, ObjectClass

from carnet.errors import TokenError
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_APPLICATION = "carnet"


def read_data(session: TokenSession, label: str, *, private: bool) -> bytes | None:
    """Return the data object of that label; None if there is none.

    Raises TokenError if there are several, which somebody else must have made.
    """
    found = _find(session, label, private=private)
    if len(found) > 1:
        raise TokenError(f"The token holds {label!r} more than once; write it again.")
    with translated():
        return bytes(found[0][Attribute.VALUE]) if found else None


def write_data(session: TokenSession, label: str, value: bytes, *, private: bool) -> None:
    """Store a data object in the place of any other of that label.

    Needs a writable session. Raises TokenError. Interrupted, it leaves the older and
    the newer one, which read_data() refuses.
    """
    older = _find(session, label, private=private)
    with translated():
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
        for one in older:
            one.destroy()


def _find(session: TokenSession, label: str, *, private: bool) -> list[Any]:
    template = {
        Attribute.APPLICATION: _APPLICATION,
        Attribute.LABEL: label,
        Attribute.PRIVATE: private,
    }
    return session.find(ObjectClass.DATA, template)

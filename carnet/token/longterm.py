"""Key pairs that stay on a token for years: found by their label, made when missing.

EC, on P-256 unless said otherwise, the private half non-extractable and good for one
use. Anybody who holds the token can put a public object of any label on it without the
PIN: so the private half's CKA_ID, which is the digest of the public key, says which
public half is right.
"""

from contextlib import ExitStack
from typing import Any

from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from carnet import crash
from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.ec_type import EcType
from carnet.token.session import TokenSession
from carnet.token.translation import translated


def find_private(session: TokenSession, label: str, type_: EcType = keys.P256) -> Any | None:
    """Return the private half; None if there is none. Raises TokenError if there are several."""
    template = {Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: label}
    found = session.find(ObjectClass.PRIVATE_KEY, template)
    if len(found) > 1:
        raise TokenError(f"The token holds several keys {label!r}; remove all but the right one.")
    if found and not keys.is_whole(found[0], type_):
        raise TokenError(
            f"The key {label!r} on the token is damaged; restore the token from a backup, or "
            f"remove the key and make it again."
        )
    return found[0] if found else None


def is_shown(session: TokenSession, label: str) -> bool:
    """Tell whether a public key is called that, which anybody can bring about."""
    template = {Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: label}
    return bool(session.find(ObjectClass.PUBLIC_KEY, template))


def public_half(session: TokenSession, label: str, private: Any) -> bytes:
    """Return the public half, a DER SubjectPublicKeyInfo; raises TokenError if it is gone."""
    key_id = private[Attribute.ID]
    template = {Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: label}
    for public in session.find(ObjectClass.PUBLIC_KEY, template):
        read = keys.read_public_key(public)
        if read and keys.key_id(read[1]) == key_id:
            return read[1]
    raise TokenError(
        f"The public half of {label!r} is gone from the token; remove the private half, "
        f"and make the key again."
    )


def find_or_make(
    session: TokenSession, label: str, use: MechanismFlag, type_: EcType = keys.P256
) -> bytes:
    """Return the public half, a DER SubjectPublicKeyInfo; the pair is made when missing.

    Needs a writable session when it is made. Raises TokenError, TokenCannotError where
    the token makes no such pairs.
    """
    with translated():
        private = find_private(session, label, type_)
        if private is None:
            return _make(session, label, use, type_)
        return public_half(session, label, private)


def _make(session: TokenSession, label: str, use: MechanismFlag, type_: EcType) -> bytes:
    with ExitStack() as temporary:
        public, private = keys.generate_session_pair(session, type_, use=use, extractable=False)
        temporary.callback(public.destroy)
        temporary.callback(private.destroy)
        read = keys.read_public_key(public)
        if read is None or read[0] is not type_:
            raise TokenError(
                f"The token made another key than one of type {type_.name}; use another token."
            )
        public_key = read[1]
        keys.store_public_key(session, public_key, label, None)
        crash.reach(f"token.public-stored {label}")
        private.copy(
            {
                Attribute.TOKEN: True,
                Attribute.ID: keys.key_id(public_key),
                Attribute.LABEL: label,
            }
        )
    return public_key

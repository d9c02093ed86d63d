"""What a token shows of its key pairs without the PIN: the public halves.

Anybody who holds the token can add to them or take away, so what they say is shown and
never relied upon.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

from pkcs11 import Attribute, ObjectClass

from carnet.token import keys
from carnet.token.onetime import KEY_TYPES, is_pair_label, unless_gone
from carnet.token.session import TokenSession
from carnet.token.translation import translated


@dataclass(frozen=True)
class ShownPair:
    """The public half of a one-time key pair."""

    key_type: str
    """A name in carnet.token.keys.TYPES."""
    public_key: bytes
    """DER SubjectPublicKeyInfo."""
    not_after: date | None
    """Last day of validity, as the token says."""


def shown_pairs(session: TokenSession) -> list[ShownPair]:
    """Return the one-time pairs whose public half is on the token; raises TokenError."""
    pairs = []
    with translated():
        for key_type in KEY_TYPES:
            wanted = {Attribute.KEY_TYPE: key_type}
            for public in session.find(ObjectClass.PUBLIC_KEY, wanted):
                with unless_gone(public):
                    pairs += _shown(public)
    return pairs


def public_keys(session: TokenSession, *, long_term: bool = True) -> list[bytes]:
    """Return every public key on the token that a pair could have; raises TokenError.

    Without `long_term` those are left out that Carnet itself keeps there for other purposes.
    """
    found = []
    with translated():
        for key_type in KEY_TYPES:
            for public in session.find(ObjectClass.PUBLIC_KEY, {Attribute.KEY_TYPE: key_type}):
                with unless_gone(public):
                    read = keys.read_public_key(public)
                    if read and (long_term or not _is_long_term(public[Attribute.LABEL])):
                        found.append(read[1])
    return found


def _is_long_term(label: str) -> bool:
    return label.startswith("carnet ") and not is_pair_label(label)


def _shown(public: Any) -> list[ShownPair]:
    """Return what a public key object shows; nothing where it is no pair's, or damaged."""
    if not is_pair_label(public[Attribute.LABEL]):
        return []
    read = keys.read_public_key(public)
    return [ShownPair(read[0].name, read[1], public[Attribute.END_DATE])] if read else []

"""Keys that a card had before, taken for one-time pairs: those of a PIV card, for one.

Such a card names its keys as it likes, makes and destroys none through PKCS#11, and takes
no data objects. So which of its keys are pairs, in what order and until when, somebody
else says, by their public keys; the card is asked for what it can do, which is to sign.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import pkcs11
from pkcs11 import Attribute, ObjectClass
from pkcs11.types import SignMixin

from carnet.token import keys
from carnet.token.onetime import KEY_TYPES, Halves, OneTimeKeys, OneTimePair, unless_gone
from carnet.token.session import TokenSession
from carnet.token.translation import translated


class FoundKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the card's that signs, and its public half."""

    label: str
    """As the card has it."""
    key_type: str
    """A name in carnet.token.keys.TYPES."""
    public_key: bytes
    """DER SubjectPublicKeyInfo."""
    private: Any
    public: Any
    asks_each_time: bool = False
    """It wants the PIN anew for each signature (CKA_ALWAYS_AUTHENTICATE)."""


def signing_keys(session: TokenSession, pattern: str = "*") -> list[FoundKey]:
    """Return the keys that sign, of types that pairs may have, in the order of their CKA_ID.

    `pattern` is of their labels, as in a shell. Raises TokenError.
    """
    found: list[tuple[bytes, FoundKey]] = []
    with translated():
        publics = {
            bytes(public[Attribute.ID]): public
            for key_type in KEY_TYPES
            for public in session.find(ObjectClass.PUBLIC_KEY, {Attribute.KEY_TYPE: key_type})
        }
        for key_type in KEY_TYPES:
            for private in session.find(ObjectClass.PRIVATE_KEY, {Attribute.KEY_TYPE: key_type}):
                with unless_gone(private):
                    name = bytes(private[Attribute.ID])
                    key = _found(private, publics.get(name))
                    if key is not None and fnmatchcase(key.label, pattern):
                        found.append((name, key))
    return [key for _, key in sorted(found, key=lambda each: each[0])]


class AdoptedKeys(OneTimeKeys):
    """The keys on a card that are these pairs.

    destroy() raises TokenCannotError where the card destroys nothing; the pair is passed
    over from then on, by this object.
    """

    def __init__(self, session: TokenSession, pairs: Iterable[OneTimePair]) -> None:
        self._wanted = {pair.key_id: pair for pair in pairs}
        super().__init__(session)

    def _search(self, template: dict[Attribute, Any]) -> dict[bytes, Halves]:
        """Look at all keys: the card knows none of them by its key id."""
        found: dict[bytes, Halves] = {}
        for key in signing_keys(self._session):
            pair = self._wanted.get(keys.key_id(key.public_key))
            if pair is not None and template.get(Attribute.ID, pair.key_id) == pair.key_id:
                # A card may have it twice, and then both are to be burned.
                halves = found.setdefault(pair.key_id, Halves(pair=pair))
                halves.private.append(key.private)
                halves.public.append(key.public)
        self._session.check()
        return found


def _found(private: Any, public: Any | None) -> FoundKey | None:
    read = keys.read_public_key(public) if public is not None else None
    if read is None or not isinstance(private, SignMixin):
        return None
    return FoundKey(
        label=private[Attribute.LABEL],
        key_type=read[0].name,
        public_key=read[1],
        private=private,
        public=public,
        asks_each_time=_asks_each_time(private),
    )


def _asks_each_time(private: Any) -> bool:
    try:
        return bool(private[Attribute.ALWAYS_AUTHENTICATE])
    except (pkcs11.AttributeTypeInvalid, pkcs11.FunctionFailed):
        return False

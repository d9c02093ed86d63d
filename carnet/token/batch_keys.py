"""Keys of batches on the Host's token: each unwraps the private keys of one batch, and no more.

With them the Host keeps private keys outside of its token, wrapped as the traveller's
token made them: one is unwrapped into a session object when it is used, and destroyed
at once. CKA_ID is what the Host knows the key-encryption key (KEK) by, CKA_LABEL names
its batch. A KEK is listed once a login, since searching a token is slow.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pkcs11
from cryptography.hazmat.primitives import hashes
from pkcs11 import Attribute, KeyType, ObjectClass

from carnet.errors import KeyNotSeenError, TokenError
from carnet.token import keys
from carnet.token.ec_type import EcType
from carnet.token.pair_type import PairType
from carnet.token.rsa_type import RsaType
from carnet.token.session import TokenSession
from carnet.token.translation import GONE, translated

_LABEL = re.compile(r"carnet batch [0-9a-f]+")


def batch_key_label(batch_id: bytes) -> str:
    """Return the CKA_LABEL of a batch's KEK."""
    return f"carnet batch {batch_id.hex()}"


class UnwrappedKey:
    """The private half of a pair, a session object for this once.

    It has the operations of a OneTimePrivateKey, and raises as that does.
    """

    def __init__(self, private: Any, type_: PairType) -> None:
        self._private = private
        self._type = type_

    def sign(self, digest: bytes) -> bytes:
        """Return the raw signature of a digest, ECDSA or RSASSA-PSS; raises TokenError."""
        with translated():
            return self._type.sign(self._private, digest)

    def agree(self, point: bytes) -> bytes:
        """Return ECDH's x-coordinate with a point; raises TokenError, ValueError, TypeError."""
        if not isinstance(self._type, EcType):
            raise TypeError(f"A pair of type {self._type.name} has no point to agree with.")
        with translated():
            return self._type.agree(self._private, point)

    def decrypt(self, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes | None:
        """Return what RSAES-OAEP encrypted, None if nothing; raises TokenError, TypeError."""
        if not isinstance(self._type, RsaType):
            raise TypeError(f"A pair of type {self._type.name} does not decrypt.")
        with translated():
            return self._type.decrypt(self._private, ciphertext, oaep)


class BatchKeys:
    """The KEKs on a token; one that another process stored meanwhile is looked for.

    Every method raises TokenError if the token fails.
    """

    def __init__(self, session: TokenSession) -> None:
        self._session = session
        self._known = self._search({})

    def held(self) -> frozenset[bytes]:
        """Return the ids of the KEKs that the token held when it was listed."""
        return frozenset(list(self._known))

    def knows(self, kek_id: bytes) -> bool:
        """Tell whether a KEK is among them, without asking the token."""
        return kek_id in self._known

    def holds(self, kek_id: bytes) -> bool:
        """Tell whether the token holds a KEK, now."""
        return bool(self._objects(kek_id))

    @contextmanager
    def unwrapped(
        self, kek_id: bytes, key_id: bytes, public_key: bytes, wrapped: bytes
    ) -> Iterator[UnwrappedKey]:
        """Unwrap a pair's private key for as long as this lasts.

        Raises KeyNotSeenError if there is no such KEK, TokenError if the key does not unwrap
        under it.
        """
        objects = self._objects(kek_id)
        if not objects:
            raise KeyNotSeenError(
                "The HSM does not hold the key of this pair's batch; import the batch on it."
            )
        type_, _ = keys.type_and_key(public_key)
        with translated():
            private = _unwrap(objects[0], key_id, wrapped, type_)
            try:
                yield UnwrappedKey(private, type_)
            finally:
                # Whatever ended the session has ended this object too.
                with suppress(*GONE):
                    keys.destroy(private)

    def prove(
        self,
        kek_id: bytes,
        public_key: bytes,
        wrapped: bytes,
        oaep: hashes.HashAlgorithm | None,
    ) -> None:
        """Make sure that a KEK cannot leave its token, and unwraps this pair's private key.

        Raises TokenError if not.
        """
        objects = self._objects(kek_id)
        with translated():
            if not objects or not all(_stays(each) for each in objects):
                raise TokenError(
                    "The HSM token did not keep the batch's key as it was stored; make room on "
                    "it and import the batch again."
                )
            type_, _ = keys.type_and_key(public_key)
            private = _unwrap(objects[0], keys.key_id(public_key), wrapped, type_)
            try:
                keys.prove(private, public_key, oaep)
            finally:
                keys.destroy(private)

    def destroy(self, kek_id: bytes) -> bool:
        """Destroy a KEK (the burn of its batch); False if there was none.

        Raises TokenAwayError where it could not be seen, and may still be there.
        """
        objects = self._objects(kek_id)
        self._known.pop(kek_id, None)
        with self._session.token.module.undisturbed(), translated():
            destroyed = [keys.destroy(each) for each in objects]
        if not all(destroyed):
            self._session.check()
        return any(destroyed)

    def _objects(self, kek_id: bytes) -> list[Any]:
        known = self._known.get(kek_id)
        if known is None:
            known = self._search({Attribute.ID: kek_id}).get(kek_id, [])
            if known:
                self._known[kek_id] = known
        return known

    def _search(self, template: dict[Attribute, Any]) -> dict[bytes, list[Any]]:
        """List KEKs by their id; there are two where an import was cut off in between."""
        found: dict[bytes, list[Any]] = defaultdict(list)
        wanted = {Attribute.KEY_TYPE: KeyType.AES, Attribute.TOKEN: True, **template}
        with translated():
            for kek in self._session.find(ObjectClass.SECRET_KEY, wanted):
                with suppress(pkcs11.ObjectHandleInvalid):
                    if _LABEL.fullmatch(kek[Attribute.LABEL]):
                        found[kek[Attribute.ID]].append(kek)
        return dict(found)


def _unwrap(kek: Any, key_id: bytes, wrapped: bytes, type_: PairType) -> Any:
    try:
        return keys.unwrap_private_key(kek, key_id, "", wrapped, type_, store=False)
    except GONE:
        raise
    except pkcs11.PKCS11Error as error:
        raise TokenError(
            f"The private key of pair {key_id.hex()} does not unwrap under its batch's key; "
            f"revoke the pair."
        ) from error


def _stays(kek: Any) -> bool:
    kept = kek[Attribute.PRIVATE] and kek[Attribute.SENSITIVE] and not kek[Attribute.EXTRACTABLE]
    others = (Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.WRAP, Attribute.DERIVE)
    return bool(kept and kek[Attribute.UNWRAP] and not any(kek[each] for each in others))

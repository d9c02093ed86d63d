"""The booklet: one-time key pairs on a token, listed, used and destroyed.

Both halves of a pair carry its key id as CKA_ID. CKA_LABEL says when it was minted
and which of its batch it is; labels sort in the order of use. CKA_END_DATE, the last
day of validity, stands on the public half, since SoftHSM2 cannot give it back from a
private one. Anybody who holds the token can change a public object without the PIN:
so label and identity are taken from the private half, and a public half counts only
if the key id is its digest. The date is a hint; Host decides.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pkcs11
from cryptography.hazmat.primitives import hashes
from pkcs11 import Attribute, KeyType, ObjectClass

from carnet import crash
from carnet.errors import KeyNotSeenError, TokenError
from carnet.token import keys
from carnet.token.ec_type import EcType
from carnet.token.rsa_type import RsaType
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_LABEL = re.compile(r"carnet \d{8}T\d{6}Z \d{4}")
_LAST_NUMBER = 9999
KEY_TYPES = (KeyType.EC, KeyType.RSA)
"""Of the objects that can be halves of a pair."""
_NAMES = (Attribute.LABEL, Attribute.ID)


def pair_label(minted: datetime, number: int) -> str:
    """Return the CKA_LABEL of a pair; labels sort by time of minting, then number.

    Raises ValueError if the number is not within 0 to 9999.
    """
    if not 0 <= number <= _LAST_NUMBER:
        raise ValueError(f"A batch numbers its pairs from 0 to {_LAST_NUMBER}.")
    return f"carnet {minted.astimezone(UTC):%Y%m%dT%H%M%SZ} {number:04}"


def is_pair_label(label: str) -> bool:
    """Tell whether an object of that label belongs to a one-time key pair."""
    return _LABEL.fullmatch(label) is not None


class OneTimePair(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time key pair of which the token has both halves."""

    key_id: bytes
    label: str
    public_key: bytes
    """DER SubjectPublicKeyInfo."""
    key_type: str
    """A name in carnet.token.keys.TYPES."""
    not_after: date | None
    """Last day of validity, as the token says."""


class OneTimePrivateKey:
    """The private half of a pair, where it is: on the token. Three operations, no more.

    Every pair signs; an EC one agrees, an RSA one decrypts.
    """

    def __init__(self, keys_: "OneTimeKeys", pair: OneTimePair) -> None:
        self._keys = keys_
        self.pair = pair

    def sign(self, digest: bytes) -> bytes:
        """Return the raw signature of a digest, ECDSA or RSASSA-PSS; raises TokenError."""
        return self._keys.sign(self.pair.key_id, digest)

    def agree(self, point: bytes) -> bytes:
        """Return ECDH's x-coordinate with a point; raises TokenError, ValueError."""
        return self._keys.agree(self.pair.key_id, point)

    def decrypt(self, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes | None:
        """Return what RSAES-OAEP encrypted, None if nothing; raises TokenError."""
        return self._keys.decrypt(self.pair.key_id, ciphertext, oaep)


class Halves(msgspec.Struct):
    """What a token has of one pair; `pair` only where that is the whole of it."""

    private: list[Any] = msgspec.field(default_factory=list)
    public: list[Any] = msgspec.field(default_factory=list)
    label: str = ""
    """The private one's."""
    pair: OneTimePair | None = None


class OneTimeKeys:
    """The one-time key pairs on a token, listed once: searching a token is slow.

    A pair that another process stored meanwhile is looked for when it is asked for, and so is
    one of which only a half was there yet.
    Every method raises TokenError if the token fails, those that use a pair KeyNotSeenError
    if it is not there; threads may share the object.
    """

    def __init__(self, session: TokenSession) -> None:
        self._session = session
        self._known = self._search({})

    def pairs(self) -> list[OneTimePair]:
        """Return the usable pairs in the order of use."""
        pairs = [halves.pair for halves in list(self._known.values()) if halves.pair]
        return sorted(pairs, key=lambda pair: pair.label)

    def private_key(self, key_id: bytes) -> OneTimePrivateKey:
        """Return the private half of a pair as one object; raises KeyNotSeenError."""
        return OneTimePrivateKey(self, self._usable(key_id)[1])

    def sign(self, key_id: bytes, digest: bytes) -> bytes:
        """Return the raw signature of a digest.

        For an EC pair that is ECDSA, r and s side by side (RFC 9053 section 2.1); for an
        RSA pair RSASSA-PSS with SHA-256 (RFC 8230 section 2).
        """
        private, pair = self._usable(key_id)
        with translated():
            return keys.TYPES[pair.key_type].sign(private, digest)

    def agree(self, key_id: bytes, peer_public_key: bytes) -> bytes:
        """Return the x-coordinate of the ECDH shared point (RFC 9180 section 4.1).

        `peer_public_key` is an uncompressed point; raises ValueError, before the token
        sees it, if it does not lie on the pair's curve, TypeError if the pair is on none.
        """
        private, pair = self._usable(key_id)
        type_ = keys.TYPES[pair.key_type]
        if not isinstance(type_, EcType):
            raise TypeError(f"A pair of type {type_.name} has no point to agree with.")
        with translated():
            return type_.agree(private, peer_public_key)

    def decrypt(self, key_id: bytes, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes | None:
        """Return what RSAES-OAEP with this hash encrypted; None if it does not decrypt.

        Raises TypeError if the pair is none of RSA.
        """
        private, pair = self._usable(key_id)
        type_ = keys.TYPES[pair.key_type]
        if not isinstance(type_, RsaType):
            raise TypeError(f"A pair of type {type_.name} does not decrypt.")
        with translated():
            return type_.decrypt(private, ciphertext, oaep)

    def prove_signing(self, key_id: bytes) -> None:
        """Make sure that a pair signs, and that no other token has it; raises TokenError."""
        private, pair = self._usable(key_id)
        with translated():
            keys.prove_signing(private, pair.public_key)

    def destroy(self, key_id: bytes) -> bool:
        """Destroy both halves, the private one first (the burn); False if none was there.

        Raises TokenAwayError where a half could not be seen, and may still be there.
        """
        listed = self._known.pop(key_id, Halves())
        if listed.pair is not None and self._destroyed(listed):
            return True
        # What was listed is gone: an import of another process may have put it back since.
        return self._destroyed(self._look_for(key_id))

    def _destroyed(self, halves: Halves) -> bool:
        with self._session.token.module.undisturbed(), translated():
            destroyed = [keys.destroy(half) for half in halves.private]
            crash.reach("token.private-destroyed")
            destroyed += [keys.destroy(half) for half in halves.public]
        if not all(destroyed):
            self._session.check()
        return any(destroyed)

    def listed(self) -> frozenset[bytes]:
        """Return the key ids of all that is known to be on the token; asks it nothing."""
        return frozenset(self._known)

    def halves(self) -> frozenset[bytes]:
        """Return the key ids of which the token has no two whole halves, as after a power cut."""
        return frozenset(key_id for key_id, halves in self._known.items() if not halves.pair)

    def whole(self) -> frozenset[bytes]:
        """Return the key ids of the pairs that are known to be on the token; asks it nothing."""
        return frozenset(key_id for key_id, halves in self._known.items() if halves.pair)

    def holds(self, key_id: bytes) -> bool:
        """Tell whether the pair was on the token when it was listed."""
        return key_id in self._known and self._known[key_id].pair is not None

    def add(self, private: Any, public: Any) -> OneTimePair:
        """Take in a pair that was just stored through this session."""
        with translated():
            halves = Halves([private], [public], private[Attribute.LABEL])
            halves.pair = _pair(private[Attribute.ID], halves)
            if halves.pair is None:
                raise TokenError("The token did not keep the key pair as it was stored; try again.")
            self._known[halves.pair.key_id] = halves
        return halves.pair

    def _usable(self, key_id: bytes) -> tuple[Any, OneTimePair]:
        halves = self._known.get(key_id, Halves())
        if halves.pair is None:
            halves = self._look_for(key_id)
        if halves.pair is None:
            raise KeyNotSeenError(
                f"The token does not hold key pair {key_id.hex()}; use another pair."
            )
        self._known[key_id] = halves
        return halves.private[0], halves.pair

    def _look_for(self, key_id: bytes) -> Halves:
        return self._search({Attribute.ID: key_id}).get(key_id, Halves())

    def _search(self, template: dict[Attribute, Any]) -> dict[bytes, Halves]:
        found: dict[bytes, Halves] = defaultdict(Halves)
        with translated():
            for key_id, label, private in self._of_pairs(ObjectClass.PRIVATE_KEY, template):
                halves = found[key_id]
                halves.private.append(private)
                halves.label = halves.label or label
            for key_id, _, public in self._of_pairs(ObjectClass.PUBLIC_KEY, template):
                found[key_id].public.append(public)
            for key_id, halves in found.items():
                with unless_gone(*halves.private, *halves.public):
                    halves.pair = _pair(key_id, halves)
        self._session.check()
        return dict(found)

    def _of_pairs(
        self, object_class: ObjectClass, template: dict[Attribute, Any]
    ) -> list[tuple[bytes, str, Any]]:
        """Return the halves of one-time pairs with their key ids and labels.

        With one search and one look at each: at every search, and at every look at an object,
        SoftHSM2 reads files. A key that no pair can be of is no half of a whole one.
        """
        halves: list[tuple[bytes, str, Any]] = []
        for half in self._session.find(object_class, template):
            with unless_gone(half):
                told = half.get_attributes(_NAMES)
                label = told.get(Attribute.LABEL, "")
                if is_pair_label(label):
                    halves.append((told[Attribute.ID], label, half))
        return halves


@contextmanager
def unless_gone(*found: Any) -> Iterator[None]:
    """Pass over what another session has destroyed since it was found.

    SoftHSM2 calls an object's handle invalid when it is gone, and fails in general
    (CKR_GENERAL_ERROR) when it goes while it is read: then it is asked again.
    """
    try:
        yield
    except pkcs11.ObjectHandleInvalid:
        pass
    except pkcs11.GeneralError:
        if not any(map(_is_gone, found)):
            raise


def _is_gone(found: Any) -> bool:
    try:
        _ = found[Attribute.ID]
    except pkcs11.ObjectHandleInvalid:
        return True
    except pkcs11.PKCS11Error:
        pass
    return False


def _pair(key_id: bytes, halves: Halves) -> OneTimePair | None:
    """Describe a pair; None if a half is missing or damaged, or none fits the key id."""
    for public in halves.public if halves.private else ():
        read = keys.read_public_key(public)
        if read and keys.key_id(read[1]) == key_id and keys.is_whole(halves.private[0], read[0]):
            return OneTimePair(
                key_id=key_id,
                label=halves.label,
                public_key=read[1],
                key_type=read[0].name,
                not_after=public[Attribute.END_DATE],
            )
    return None

"""The same private key on two tokens, never in the clear outside of them.

Traveller's token: an ephemeral pair agrees by ECDH with the Host's transport key on a
key-encryption key (KEK); a one-time pair is generated as an extractable session
object, wrapped under the KEK, copied to the token as non-extractable, and the session
object is destroyed. Host's token: the same agreement, then unwrapping as
non-extractable. Wrapping is AES Key Wrap with Padding (RFC 5649), as each module takes
CKM_AES_KEY_WRAP_PAD to be: two that differ in that share no key (docs/TOKENS.md).

The two public keys that are agreed upon reach the other side through the security
officer, who vouches for them; here they are only checked to be what they claim.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from types import TracebackType
from typing import Any, Self

import pkcs11
from cryptography.hazmat.primitives import hashes
from pkcs11 import Attribute, MechanismFlag

from carnet import crash
from carnet.errors import TokenError
from carnet.token import keys, longterm
from carnet.token.batch_keys import batch_key_label
from carnet.token.onetime import OneTimeKeys, is_pair_label
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.translation import translated, tried

_TRANSPORT_LABEL = "carnet transport"


@dataclass(frozen=True, kw_only=True)
class MintedPair:
    """A one-time key pair that was just made, with its private key for the Host."""

    key_id: bytes
    public_key: bytes
    """DER SubjectPublicKeyInfo."""
    wrapped: bytes
    """The private key (PKCS #8), wrapped under the batch's KEK."""
    wrapped_for_others: tuple[bytes, ...] = ()
    """The same under the KEKs of the others, for a Host with several HSMs."""


class _KeyEncryptionKey:
    """A KEK on a token; as a context manager it destroys the KEK at the end."""

    def __init__(self, session: TokenSession, kek: Any) -> None:
        self._session = session
        self._kek = kek

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Destroy the KEK now; the end of the session does so too."""
        with translated():
            keys.destroy(self._kek)


class WrappingKey(_KeyEncryptionKey):
    """The traveller's side of a batch: mints pairs and wraps their private keys."""

    def __init__(self, session: TokenSession, kek: Any, ephemeral_public_key: bytes) -> None:
        super().__init__(session, kek)
        self.ephemeral_public_key = ephemeral_public_key
        """DER SubjectPublicKeyInfo, by which the Host opens the transport."""

    def mint_pair(
        self,
        label: str,
        not_after: date | None,
        type_: PairType = keys.P256,
        oaep: hashes.HashAlgorithm | None = None,
        others: "Sequence[WrappingKey]" = (),
    ) -> MintedPair:
        """Make a one-time pair that stays on this token, and wrap it for the Host.

        `others` are the wrapping keys for further HSMs of that Host. It counts only once
        its halves were tried against each other, an RSA pair with that hash of OAEP; one
        that fails, or is interrupted, is destroyed. Raises ValueError unless the label is
        one of pair_label(), TokenError if the token fails, TokenCannotError if it lacks
        something for this type.
        """
        _check_label(label)
        undisturbed = self._session.token.module.undisturbed()
        with undisturbed, translated(), ExitStack() as temporary, ExitStack() as undo:
            public, private, public_key = self._generate_extractable(type_, temporary)
            with tried(f"wrap a private key of type {type_.name}"):
                wrapped, *for_others = (each.wrap(private) for each in (self, *others))
            kept = private.copy(
                _kept(keys.key_id(public_key), label) | {Attribute.EXTRACTABLE: False}
            )
            undo.callback(kept.destroy)
            crash.reach("token.private-stored")
            keys.prove(kept, public_key, oaep)
            keys.keep_public_half(public, public_key, label, not_after)
            crash.reach("token.pair-stored")
            undo.pop_all()
        return MintedPair(
            key_id=keys.key_id(public_key),
            public_key=public_key,
            wrapped=wrapped,
            wrapped_for_others=tuple(for_others),
        )

    def wrap(self, private: Any) -> bytes:
        """Return a private key of this token, an extractable one, under this KEK."""
        return bytes(self._kek.wrap_key(private, mechanism=keys.WRAPPING))

    def _generate_extractable(
        self, type_: PairType, temporary: ExitStack
    ) -> tuple[Any, Any, bytes]:
        public, private = keys.generate_session_pair(
            self._session, type_, use=type_.use, extractable=True
        )
        temporary.callback(public.destroy)
        temporary.callback(private.destroy)
        return public, private, _public_key_of(public, type_)


class UnwrappingKey(_KeyEncryptionKey):
    """The Host's side of a batch: takes in the pairs that the traveller's token made."""

    def __init__(self, session: TokenSession, kek: Any) -> None:
        super().__init__(session, kek)
        self._booklet = OneTimeKeys(session)
        self._cut_off = self._booklet.halves()

    def try_pair(
        self, key_id: bytes, public_key: bytes, wrapped: bytes, oaep: hashes.HashAlgorithm | None
    ) -> None:
        """Unwrap a pair for this once and use it as requests would; nothing of it stays.

        Raises TokenError if it is not what it claims to be, TokenCannotError if this
        token lacks something for it.
        """
        type_ = _checked_type(key_id, public_key)
        with translated(), ExitStack() as temporary:
            private = self._unwrap(key_id, "", wrapped, type_, store=False)
            temporary.callback(private.destroy)
            keys.prove(private, public_key, oaep)

    def import_pair(
        self,
        key_id: bytes,
        label: str,
        public_key: bytes,
        wrapped: bytes,
        not_after: date | None,
        oaep: hashes.HashAlgorithm | None = None,
    ) -> bool:
        """Unwrap a pair onto this token; False if it is there already.

        It counts only once the private key was tried against the public one, an RSA pair
        with that hash of OAEP; one that fails, or is interrupted, is destroyed. Raises
        ValueError unless the label is one of pair_label(), TokenError if the pair is not
        what it claims to be.
        """
        _check_label(label)
        type_ = _checked_type(key_id, public_key)
        if self._booklet.holds(key_id):
            return False
        if key_id in self._cut_off:
            self._booklet.destroy(key_id)
        with self._session.token.module.undisturbed(), translated(), ExitStack() as undo:
            private = self._unwrap(key_id, label, wrapped, type_, store=True)
            undo.callback(private.destroy)
            crash.reach("token.private-imported")
            keys.prove(private, public_key, oaep)
            public = keys.store_public_key(self._session, public_key, label, not_after)
            undo.callback(public.destroy)
            self._booklet.add(private, public)
            undo.pop_all()
        crash.reach("token.pair-imported")
        return True

    def drop(self, key_id: bytes) -> None:
        """Destroy what an import that was cut off left of a pair on this token.

        Raises TokenError if the token fails.
        """
        if self._booklet.holds(key_id) or key_id in self._cut_off:
            self._booklet.destroy(key_id)

    def keep(self, kek_id: bytes, batch_id: bytes) -> None:
        """Store the KEK on this token, as BatchKeys finds it: non-extractable, to unwrap only.

        Raises TokenError if the token fails.
        """
        with self._session.token.module.undisturbed(), translated():
            self._kek.copy(
                {
                    Attribute.TOKEN: True,
                    Attribute.PRIVATE: True,
                    Attribute.ID: kek_id,
                    Attribute.LABEL: batch_key_label(batch_id),
                }
            )
        crash.reach("token.batch-key-stored")

    def _unwrap(
        self, key_id: bytes, label: str, wrapped: bytes, type_: PairType, *, store: bool
    ) -> Any:
        try:
            return keys.unwrap_private_key(self._kek, key_id, label, wrapped, type_, store=store)
        except pkcs11.PKCS11Error as error:
            raise TokenError(
                f"The private key of pair {key_id.hex()} does not unwrap on this token: it is for "
                f"another transport key, or this HSM reads the wrapping otherwise than the token "
                f"that wrapped it; mint the batch anew for this Host's transport key, on a token "
                f"of the HSM's kind, or in custody split."
            ) from error


def host_transport_key(session: TokenSession) -> bytes:
    """Return the Host's transport key, made when missing; a DER SubjectPublicKeyInfo.

    The private half stays on the token, non-extractable, and cannot sign.
    Needs a writable session when it is made. Raises TokenError.
    """
    with session.token.module.undisturbed():
        return longterm.find_or_make(session, _TRANSPORT_LABEL, MechanismFlag.DERIVE)


def shows_transport_key(session: TokenSession) -> bool:
    """Tell, without the PIN, whether a public key is called as it is; raises TokenError."""
    return longterm.is_shown(session, _TRANSPORT_LABEL)


def open_transport(session: TokenSession, ephemeral_public_key: bytes) -> UnwrappingKey:
    """Agree, on the Host's token, with the ephemeral key of a batch.

    Raises TokenError if that is no P-256 public key or there is no transport key.
    """
    point = _peer_point(ephemeral_public_key, "The batch's ephemeral key")
    with translated():
        private = longterm.find_private(session, _TRANSPORT_LABEL)
        if private is None:
            raise TokenError("The token holds no transport key; make it, then mint for it.")
        kek = keys.derive_key_encryption_key(private, point, MechanismFlag.UNWRAP)
    return UnwrappingKey(session, kek)


def agree_transport(session: TokenSession, host_transport_public_key: bytes) -> WrappingKey:
    """Agree, on the traveller's token, with the Host's transport key.

    The ephemeral private key is gone when this returns. Raises TokenError if the peer's
    is no P-256 public key.
    """
    point = _peer_point(host_transport_public_key, "The Host's transport key")
    with translated():
        public, private = keys.generate_session_pair(
            session, keys.P256, use=MechanismFlag.DERIVE, extractable=False
        )
        with ExitStack() as temporary:
            temporary.callback(public.destroy)
            temporary.callback(private.destroy)
            kek = keys.derive_key_encryption_key(private, point, MechanismFlag.WRAP)
            return WrappingKey(session, kek, _public_key_of(public, keys.P256))


def _kept(key_id: bytes, label: str) -> dict[Attribute, Any]:
    return {
        Attribute.TOKEN: True,
        Attribute.ID: key_id,
        Attribute.LABEL: label,
    }


def _public_key_of(public: Any, type_: PairType) -> bytes:
    read = keys.read_public_key(public)
    if read is None or read[0] is not type_:
        raise TokenError(
            f"The token made another key than one of type {type_.name}; use another token."
        )
    return read[1]


def _peer_point(public_key: bytes, whose: str) -> bytes:
    try:
        keys.type_and_key(public_key)
    except ValueError as error:
        raise TokenError(f"{whose} is no valid public key; have it sent again.") from error
    try:
        return keys.point_on_p256(public_key)
    except ValueError as error:
        raise TokenError(f"{whose} is not on P-256; have one made that is.") from error


def _check_label(label: str) -> None:
    if not is_pair_label(label):
        raise ValueError(f"{label!r} is not the label of a one-time key pair.")


def _checked_type(key_id: bytes, public_key: bytes) -> PairType:
    try:
        type_, _ = keys.type_and_key(public_key)
    except ValueError as error:
        raise TokenError(f"Pair {key_id.hex()} has no valid public key; mint it anew.") from error
    if keys.key_id(public_key) != key_id:
        raise TokenError(f"Pair {key_id.hex()} has another pair's public key; mint it anew.")
    return type_

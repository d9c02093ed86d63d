"""Key pairs as PKCS#11 holds them and as the rest of the world does.

The public key's form outside a token is the DER SubjectPublicKeyInfo (RFC 5480, RFC 3279).
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from typing import Any

import pkcs11
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.constants import DEFAULT

from carnet.errors import TokenCannotError, TokenError
from carnet.token.ec_type import EcType, point_of
from carnet.token.pair_type import PairType, PublicKey, spki_of
from carnet.token.rsa_type import OAEP_HASHES, RsaType
from carnet.token.session import TokenSession
from carnet.token.translation import translated

WRAPPING = Mechanism.AES_KEY_WRAP_PAD
"""AES Key Wrap with Padding (RFC 5649), in which private keys travel."""
_SIZE_OF_KEY_ID = 16

P256 = EcType("ec-p256", bytes.fromhex("06082a8648ce3d030107"), ec.SECP256R1(), hashes.SHA256())
P384 = EcType("ec-p384", bytes.fromhex("06052b81040022"), ec.SECP384R1(), hashes.SHA384())
RSA = tuple(RsaType(f"rsa-{bits}", bits) for bits in (2048, 3072, 4096))
TYPES: dict[str, PairType] = {each.name: each for each in (P256, P384, *RSA)}
"""The types that one-time key pairs may have, by the officer's name for them."""


def key_id(public_key: bytes) -> bytes:
    """Return the 16 bytes by which a pair is known: SHA-256 of its SPKI, truncated."""
    return hashlib.sha256(public_key).digest()[:_SIZE_OF_KEY_ID]


def type_and_key(public_key: bytes) -> tuple[PairType, PublicKey]:
    """Take a SubjectPublicKeyInfo apart into the pair's type and the key.

    Raises ValueError if it is not the DER of a key of one of TYPES.
    """
    try:
        key = load_der_public_key(public_key)
    except UnsupportedAlgorithm as error:
        raise ValueError("This is no public key of a type that is supported.") from error
    for each in TYPES.values():
        if isinstance(key, PublicKey) and each.is_of(key):
            return each, key
    raise ValueError("This is no public key of a type that is supported.")


def point_on_p256(public_key: bytes) -> bytes:
    """Return the uncompressed point of a key on P-256; raises ValueError for another."""
    _, key = type_and_key(public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not P256.is_of(key):
        raise ValueError("This key is not on P-256.")
    return point_of(key)


def read_public_key(public: Any) -> tuple[PairType, bytes] | None:
    """Read a public key object's type and SubjectPublicKeyInfo; None if not one of ours."""
    for each in TYPES.values():
        if public.key_type == each.key_type:
            try:
                return each, spki_of(each.read(public))
            except (ValueError, pkcs11.AttributeTypeInvalid):
                continue
    return None


def is_whole(private: Any, type_: PairType) -> bool:
    """Tell whether a private key object has what one of this type is known by.

    SoftHSM2 crashes in ECDH with a key whose file was cut short before the curve, as
    a power cut or a full disk leaves it.
    """
    try:
        return type_.is_whole(private)
    except pkcs11.ObjectHandleInvalid:
        raise
    except pkcs11.PKCS11Error:
        return False


def generate_session_pair(
    session: TokenSession, type_: PairType, *, use: MechanismFlag, extractable: bool
) -> tuple[Any, Any]:
    """Generate a pair that is gone with the session; return its public and private half.

    The templates name only what every module tried accepts. Raises TokenCannotError if
    the token does not make pairs of this type.
    """
    return type_.generate(
        session,
        use,
        public_template(use),
        private_template(type_, use) | {Attribute.EXTRACTABLE: extractable},
    )


def public_template(use: MechanismFlag) -> dict[Attribute, Any]:
    """Return the public half's uses; some tokens try the halves against each other by them."""
    return {
        Attribute.VERIFY: MechanismFlag.SIGN in use,
        Attribute.ENCRYPT: True if MechanismFlag.DECRYPT in use else DEFAULT,
        Attribute.WRAP: DEFAULT,
    }


def private_template(type_: PairType, use: MechanismFlag) -> dict[Attribute, Any]:
    """Return the template of a private key that stays on its token."""
    return {
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.ENCRYPT: DEFAULT,
        Attribute.VERIFY: DEFAULT,
        Attribute.WRAP: DEFAULT,
        Attribute.UNWRAP: DEFAULT,
        **type_.private_attributes(use),
    }


def store_public_key(
    session: TokenSession, public_key: bytes, label: str, not_after: date | None
) -> Any:
    """Store a public key on the token, under its key id; return the object."""
    type_, key = type_and_key(public_key)
    return session.raw.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: type_.key_type,
            Attribute.VERIFY: True,
            **type_.public_attributes(key),
            **_stored(public_key, label, not_after),
        }
    )


def keep_public_half(public: Any, public_key: bytes, label: str, not_after: date | None) -> Any:
    """Store the public half of a pair that was made for the session; return the object.

    By a copy, as the private half: SoftHSM2 writes the file of an object that is created
    attribute by attribute, and that of a copy once.
    """
    return public.copy(_stored(public_key, label, not_after))


def _stored(public_key: bytes, label: str, not_after: date | None) -> dict[Attribute, Any]:
    """Return what every public key on a token has, whichever way it came there."""
    validity = {} if not_after is None else {Attribute.END_DATE: not_after}
    return {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.ID: key_id(public_key),
        Attribute.LABEL: label,
        **validity,
    }


def derive_key_encryption_key(private: Any, peer_point: bytes, use: MechanismFlag) -> Any:
    """Agree on an AES-256 key that never leaves the token and is gone with the session.

    ECDH with the null key derivation function, which every module has: the key is the
    shared x-coordinate itself, and a P-256 one has the size of an AES-256 key.
    """
    return private.derive_key(
        KeyType.AES,
        256,
        capabilities=use,
        mechanism=Mechanism.ECDH1_DERIVE,
        mechanism_param=(KDF.NULL, None, peer_point),
        template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    )


def unwrap_private_key(
    kek: Any, key_id: bytes, label: str, wrapped: bytes, type_: PairType, *, store: bool
) -> Any:
    """Unwrap a private key (PKCS #8) as non-extractable, onto the token or for the session."""
    return kek.unwrap_key(
        ObjectClass.PRIVATE_KEY,
        type_.key_type,
        wrapped,
        id=key_id,
        label=label,
        mechanism=WRAPPING,
        store=store,
        capabilities=type_.use,
        template=private_template(type_, type_.use),
    )


def prove(private: Any, public_key: bytes, oaep: hashes.HashAlgorithm | None = None) -> None:
    """Make sure that a private key is the public key's, serves, and cannot leave its token.

    An RSA key has to decrypt with that hash of OAEP. Raises TokenError if not,
    TokenCannotError where the token lacks a way of using such keys.
    """
    if not private[Attribute.SENSITIVE] or private[Attribute.EXTRACTABLE]:
        raise TokenError("The token would let the private key out; use another kind of token.")
    type_, key = type_and_key(public_key)
    if not type_.prove(private, key, oaep):
        raise TokenError("The private key is not the public key's; mint the pair anew.")


def prove_signing(private: Any, public_key: bytes) -> None:
    """Make sure that a private key signs as the public key's, and that no other token has it.

    Raises TokenError if not, TokenCannotError where the token does not sign with such keys,
    or does not say that it keeps them.
    """
    if not private[Attribute.SENSITIVE] or not private[Attribute.NEVER_EXTRACTABLE]:
        raise TokenCannotError(
            "The token would let the private key out, or did not make it itself to keep it (none "
            "in custody paired is made so); adopt other keys, or use another kind of token."
        )
    type_, key = type_and_key(public_key)
    if not type_.prove_signing(private, key):
        raise TokenError("The private key is not the public key's; mint the pair anew.")


def find_oaep(session: TokenSession, type_: RsaType) -> str:
    """Return the name of the strongest hash that the token's OAEP has, found by trying.

    A token lists OAEP without telling for which hashes. Raises TokenCannotError if it
    has none.
    """
    with translated(), trial_pair(session, type_) as (public, private):
        key = type_.read(public)
        for name, oaep in OAEP_HASHES.items():
            if type_.can_decrypt(private, key, oaep):
                return name
    raise TokenCannotError(
        "The token decrypts no RSAES-OAEP; take another key type, or another token."
    )


@contextmanager
def trial_pair(session: TokenSession, type_: PairType) -> Iterator[tuple[Any, Any]]:
    """Yield a pair that stays on its token, and destroy it.

    It is gone with the session, except on tokens that keep all that they make (a TPM).
    Raises TokenCannotError if the token makes no pairs of this type.
    """
    try:
        made = generate_session_pair(session, type_, use=type_.use, extractable=False)
    except TokenCannotError:
        stored = {Attribute.TOKEN: True}
        private_half = private_template(type_, type_.use) | stored
        made = type_.generate(session, type_.use, public_template(type_.use) | stored, private_half)
    with ExitStack() as temporary:
        for half in made:
            temporary.callback(destroy, half)
        yield made


def destroy(key: Any) -> bool:
    """Destroy an object on its token; False if it was gone already."""
    try:
        key.destroy()
    except pkcs11.ObjectHandleInvalid:
        return False
    return True

"""Elliptic-curve keys as PKCS#11 holds them and as the rest of the world does.

The public key's form outside a token is the DER SubjectPublicKeyInfo (RFC 5480);
every point is checked to lie on its curve before a token sees it.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import date
from typing import Any

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.constants import DEFAULT

from carnet.errors import TokenError
from carnet.token.session import TokenSession

_UNCOMPRESSED = 0x04
_OCTET_STRING = 0x04
_SIZE_OF_KEY_ID = 16


@dataclass(frozen=True)
class Curve:
    """A curve that one-time key pairs may be on."""

    name: str
    parameters: bytes
    """CKA_EC_PARAMS: the curve's object identifier in DER (RFC 5480 section 2.1.1.1)."""
    curve: ec.EllipticCurve

    @property
    def coordinate_size(self) -> int:
        """Bytes of one coordinate, and of the ECDH shared secret."""
        return (self.curve.key_size + 7) // 8

    @property
    def point_size(self) -> int:
        """Bytes of an uncompressed point."""
        return 1 + 2 * self.coordinate_size

    def public_key(self, point: bytes) -> bytes:
        """Return an uncompressed point's SubjectPublicKeyInfo.

        Raises ValueError if it is not a point on this curve.
        """
        if len(point) != self.point_size or point[0] != _UNCOMPRESSED:
            raise ValueError(f"This is no uncompressed point on {self.name}.")
        key = ec.EllipticCurvePublicKey.from_encoded_point(self.curve, point)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


P256 = Curve("P-256", bytes.fromhex("06082a8648ce3d030107"), ec.SECP256R1())
P384 = Curve("P-384", bytes.fromhex("06052b81040022"), ec.SECP384R1())
CURVES = {curve.name: curve for curve in (P256, P384)}


def key_id(public_key: bytes) -> bytes:
    """Return the 16 bytes by which a pair is known: SHA-256 of its SPKI, truncated."""
    return hashlib.sha256(public_key).digest()[:_SIZE_OF_KEY_ID]


def curve_and_point(public_key: bytes) -> tuple[Curve, bytes]:
    """Take a SubjectPublicKeyInfo apart into its curve and its uncompressed point.

    Raises ValueError if it is not DER, not on a curve of CURVES or not a point on it.
    """
    key = load_der_public_key(public_key)
    for curve in CURVES.values():
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == curve.curve.name:
            return curve, key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    raise ValueError("This is no public key on a curve that is supported.")


def read_public_key(public: Any) -> tuple[Curve, bytes] | None:
    """Read a public key object's curve and SubjectPublicKeyInfo; None if not one of ours."""
    parameters = public[Attribute.EC_PARAMS]
    point = public[Attribute.EC_POINT]
    for curve in CURVES.values():
        if parameters == curve.parameters:
            try:
                return curve, curve.public_key(_unwrapped(point, curve))
            except ValueError:
                return None
    return None


def _unwrapped(point: bytes, curve: Curve) -> bytes:
    # Some modules leave out the OCTET STRING that CKA_EC_POINT should be wrapped in.
    header = bytes((_OCTET_STRING, curve.point_size))
    return point.removeprefix(header) if len(point) > curve.point_size else point


def generate_session_pair(
    session: TokenSession, curve: Curve, *, use: MechanismFlag, extractable: bool
) -> tuple[Any, Any]:
    """Generate a pair that is gone with the session; return its public and private half.

    The templates name only what every module tried accepts.
    """
    parameters = session.raw.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: curve.parameters}, local=True
    )
    return parameters.generate_keypair(
        capabilities=use,
        public_template={Attribute.ENCRYPT: DEFAULT, Attribute.WRAP: DEFAULT},
        private_template=private_template(use) | {Attribute.EXTRACTABLE: extractable},
    )


def private_template(use: MechanismFlag) -> dict[Attribute, Any]:
    """Return the template of a private key that stays on its token."""
    return {
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.SIGN: MechanismFlag.SIGN in use,
        Attribute.DERIVE: MechanismFlag.DERIVE in use,
        Attribute.ENCRYPT: DEFAULT,
        Attribute.DECRYPT: DEFAULT,
        Attribute.VERIFY: DEFAULT,
        Attribute.WRAP: DEFAULT,
        Attribute.UNWRAP: DEFAULT,
    }


def store_public_key(
    session: TokenSession, public_key: bytes, label: str, not_after: date | None
) -> Any:
    """Store a public key on the token, under its key id; return the object."""
    curve, point = curve_and_point(public_key)
    validity = {} if not_after is None else {Attribute.END_DATE: not_after}
    return session.raw.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.EC,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.VERIFY: True,
            Attribute.ID: key_id(public_key),
            Attribute.LABEL: label,
            Attribute.EC_PARAMS: curve.parameters,
            Attribute.EC_POINT: bytes((_OCTET_STRING, len(point))) + point,
            **validity,
        }
    )


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


def prove(private: Any, public_key: bytes) -> None:
    """Make sure that a private key is the public key's and cannot leave its token.

    Raises TokenError if not.
    """
    if not private[Attribute.SENSITIVE] or private[Attribute.EXTRACTABLE]:
        raise TokenError("The token would let the private key out; use another kind of token.")
    digest = secrets.token_bytes(hashes.SHA256.digest_size)
    signature = private.sign(digest, mechanism=Mechanism.ECDSA)
    if not _verifies(public_key, digest, signature):
        raise TokenError("The private key is not the public key's; mint the pair anew.")


def _verifies(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    half = len(signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    key = load_der_public_key(public_key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        prehashed = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
        key.verify(utils.encode_dss_signature(r, s), digest, prehashed)
    except InvalidSignature:
        return False
    return True


def destroy(key: Any) -> bool:
    """Destroy an object on its token; False if it was gone already."""
    try:
        key.destroy()
    except pkcs11.ObjectHandleInvalid:
        return False
    return True

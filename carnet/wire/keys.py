"""Public keys as they travel, and the key_id that names a pair."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.wire.fault import Fault, WireError
from carnet.wire.suites import Suite

KEY_ID_LENGTH = 16


def key_id_of(public_key: bytes) -> bytes:
    """Return the key_id of a DER SubjectPublicKeyInfo: its SHA-256, cut to 16 bytes."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key)
    return digest.finalize()[:KEY_ID_LENGTH]


def load_public_key(public_key: bytes, suite: Suite) -> ec.EllipticCurvePublicKey:
    """Return the key in a DER SubjectPublicKeyInfo; WireError (FIELD) if not of the suite."""
    try:
        key = serialization.load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WireError(Fault.FIELD, "not a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != suite.curve.name:
        raise WireError(Fault.FIELD, f"not a public key of suite {suite.number}")
    return key


def encode_public_key(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a key."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def encode_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a key as an uncompressed point (SEC 1 section 2.3.3)."""
    return key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )

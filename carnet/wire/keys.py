"""Public keys as they travel, and the key_id that names a pair."""

from cryptography.hazmat.primitives import hashes

from carnet.wire.hpke import encode_point
from carnet.wire.suite import K, Suite, encode_public_key

__all__ = ["KEY_ID_LENGTH", "encode_point", "encode_public_key", "key_id_of", "load_public_key"]

KEY_ID_LENGTH = 16


def key_id_of(public_key: bytes) -> bytes:
    """Return the key_id of a DER SubjectPublicKeyInfo: its SHA-256, cut to 16 bytes."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public_key)
    return digest.finalize()[:KEY_ID_LENGTH]


def load_public_key(public_key: bytes, suite: Suite[K]) -> K:
    """Return the key in a DER SubjectPublicKeyInfo; WireError (FIELD) if not of the suite."""
    return suite.load_public_key(public_key)

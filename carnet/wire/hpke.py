"""HPKE (RFC 9180), single-shot base mode, with the private key on a token.

Sealing is the library's. Opening is ours as far as it needs the private key:
the DHKEM's decapsulation over the token's ECDH, and the key schedule after it.
"""

from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from carnet.wire.fault import Fault, WireError

Agree = Callable[[bytes], bytes]
"""A private-key operation: uncompressed point in, ECDH's x-coordinate out."""

_KEY = 32
_NONCE = 12
_TAG = 16
_MODE_BASE = b"\x00"


class Ciphers(msgspec.Struct, frozen=True, kw_only=True):
    """The algorithms of HPKE over one curve (RFC 9180 section 7); sizes in bytes."""

    curve: ec.EllipticCurve
    coordinate: int
    """Length of a field element."""
    hash: hashes.HashAlgorithm
    """Of the key derivation, in the KEM and after it."""
    kem_id: int
    kdf_id: int
    aead_id: int
    seals: hpke.Suite
    """What seals; the opening needs the token and is ours."""

    @property
    def point(self) -> int:
        """Length of an uncompressed point."""
        return 1 + 2 * self.coordinate


def seal(
    plaintext: bytes, public_key: ec.EllipticCurvePublicKey, info: bytes, suite: Ciphers
) -> bytes:
    """Return enc ‖ ciphertext (RFC 9180 section 6.1)."""
    return suite.seals.encrypt(plaintext, public_key, info)


def open_sealed(
    sealed: bytes,
    public_key: ec.EllipticCurvePublicKey,
    agree: Agree,
    info: bytes,
    suite: Ciphers,
) -> bytes:
    """Return the plaintext sealed to the pair whose private key `agree` uses.

    Raises WireError (SEAL) for whatever does not open; a point off the curve
    never reaches the token.
    """
    check_sealed(sealed, suite)
    enc, ciphertext = sealed[: suite.point], sealed[suite.point :]
    shared_secret = _decapsulate(enc, public_key, agree, suite)
    key, nonce = _key_schedule(shared_secret, info, suite)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, b"")
    except (InvalidTag, ValueError):
        raise WireError(Fault.SEAL, "the seal does not open") from None


def check_sealed(sealed: bytes, suite: Ciphers) -> None:
    """Raise WireError (SEAL) for what cannot open, as far as it shows without the key.

    That is: shorter than an encapsulated key and a tag, or no uncompressed point on the
    suite's curve.
    """
    if len(sealed) < suite.point + _TAG:
        raise WireError(Fault.SEAL, "too short for an encapsulated key and a tag")
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(suite.curve, sealed[: suite.point])
    except ValueError:
        raise WireError(Fault.SEAL, "the encapsulated key is no point of the curve") from None


def encode_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a key as an uncompressed point (SEC 1 section 2.3.3)."""
    return key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )


def _decapsulate(
    enc: bytes, public_key: ec.EllipticCurvePublicKey, agree: Agree, suite: Ciphers
) -> bytes:
    """Decap of DHKEM (RFC 9180 section 4.1)."""
    label = _Labels(b"KEM" + suite.kem_id.to_bytes(2, "big"), suite)
    eae_prk = label.extract(b"", b"eae_prk", agree(enc))
    kem_context = enc + encode_point(public_key)
    return label.expand(eae_prk, b"shared_secret", kem_context, suite.hash.digest_size)


def _key_schedule(shared_secret: bytes, info: bytes, suite: Ciphers) -> tuple[bytes, bytes]:
    """Return key and nonce of base mode (RFC 9180 section 5.1)."""
    numbers = (suite.kem_id, suite.kdf_id, suite.aead_id)
    label = _Labels(b"HPKE" + b"".join(n.to_bytes(2, "big") for n in numbers), suite)
    context = (
        _MODE_BASE
        + label.extract(b"", b"psk_id_hash", b"")
        + label.extract(b"", b"info_hash", info)
    )
    secret = label.extract(shared_secret, b"secret", b"")
    return (
        label.expand(secret, b"key", context, _KEY),
        label.expand(secret, b"base_nonce", context, _NONCE),
    )


class _Labels(msgspec.Struct, frozen=True):
    """LabeledExtract and LabeledExpand (RFC 9180 section 4)."""

    suite_id: bytes
    suite: Ciphers

    def extract(self, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return HKDF.extract(self.suite.hash, salt, b"HPKE-v1" + self.suite_id + label + ikm)

    def expand(self, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + self.suite_id + label + info
        return HKDFExpand(self.suite.hash, length, labeled).derive(prk)

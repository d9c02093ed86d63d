"""The protocol a second time, from its rules: keys, signature, seal, session key.

It shares no line with the product. Every key is derived from a name, and nothing
is random, so that the same vectors come out each time.
"""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.vectors.encoding import encode
from tests.vectors.rsa import RsaPair, derived

_MLKEM768_X25519 = 0x647A
_HKDF_SHA256 = 0x0001
_AES_256_GCM = 0x0002
_XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")
MLKEM_CIPHERTEXT = bytes.fromhex((Path(__file__).parent / "mlkem-ciphertext.hex").read_text())
"""The one part that is chosen at random: ML-KEM-768's encapsulation to EPHEMERAL_SECRET."""


@dataclass(frozen=True)
class Curve:
    """A curve, and the algorithms that its suite has."""

    curve: ec.EllipticCurve
    order: int
    size: int
    """Bytes of a coordinate."""
    hash_: str
    kem: int
    kdf: int
    suite: int
    algorithm: int

    @property
    def hashing(self) -> hashes.HashAlgorithm:
        return hashes.SHA256() if self.hash_ == "sha256" else hashes.SHA384()


P256 = Curve(
    ec.SECP256R1(),
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    32,
    "sha256",
    0x0010,
    _HKDF_SHA256,
    1,
    -7,
)
P384 = Curve(
    ec.SECP384R1(),
    int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
        "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
        16,
    ),
    48,
    "sha384",
    0x0011,
    0x0002,
    3,
    -35,
)


@dataclass(frozen=True)
class Pair:
    """A one-time key pair, or the officer's, derived from a name."""

    name: str
    curve: Curve = P256

    @property
    def suite(self) -> int:
        return self.curve.suite

    @property
    def algorithm(self) -> int:
        return self.curve.algorithm

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        drawn = int.from_bytes(derived(f"{self.name} scalar", self.curve.size), "big")
        return ec.derive_private_key(drawn % (self.curve.order - 1) + 1, self.curve.curve)

    @property
    def private_bytes(self) -> bytes:
        return self.private.private_numbers().private_value.to_bytes(self.curve.size, "big")

    @property
    def spki(self) -> bytes:
        key = self.private.public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def point(self) -> bytes:
        key = self.private.public_key()
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.spki).digest()[:16]

    def sign(self, structure: bytes) -> bytes:
        """Return the signature r ‖ s, deterministic (RFC 6979)."""
        scheme = ec.ECDSA(self.curve.hashing, deterministic_signing=True)
        parts = utils.decode_dss_signature(self.private.sign(structure, scheme))
        return b"".join(part.to_bytes(self.curve.size, "big") for part in parts)

    def seal(self, plaintext: bytes, info: bytes, name: str) -> bytes:
        """Return enc ‖ ciphertext, with the ephemeral key that the name gives."""
        ephemeral = Pair(f"{name} ephemeral", self.curve)
        shared = ephemeral.private.exchange(ec.ECDH(), self.private.public_key())
        key, nonce = self._keys(shared, ephemeral.point, info)
        return ephemeral.point + AESGCM(key).encrypt(nonce, plaintext, b"")

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed; InvalidTag where it does not open."""
        length = 1 + 2 * self.curve.size
        enc, ciphertext = sealed[:length], sealed[length:]
        sender = ec.EllipticCurvePublicKey.from_encoded_point(self.curve.curve, enc)
        key, nonce = self._keys(self.private.exchange(ec.ECDH(), sender), enc, info)
        return AESGCM(key).decrypt(nonce, ciphertext, b"")

    def _keys(self, shared: bytes, enc: bytes, info: bytes) -> tuple[bytes, bytes]:
        curve = self.curve
        secret = _dhkem(shared, enc, self)
        return _key_schedule(secret, info, curve.kem, curve.kdf, curve.hash_)


AnyPair = Pair | RsaPair


def info_of(
    key_id: bytes,
    direction: str = "request",
    binding: bytes = b"",
    suite: int = 1,
    custody: str = "",
) -> bytes:
    """Return what seal and signature of a message are bound to."""
    return encode(["carnet", 1, direction, suite, key_id, binding, *([custody] if custody else [])])


def sign1(
    payload: bytes, external_aad: bytes, pair: AnyPair, algorithm: int | None = None
) -> list[Any]:
    """Return the parts of a COSE_Sign1 (RFC 9052 section 4.2)."""
    protected = encode({1: pair.algorithm if algorithm is None else algorithm})
    structure = encode(["Signature1", protected, external_aad, payload])
    return [protected, {}, payload, pair.sign(structure)]


def _extract(salt: bytes, material: bytes, hash_: str = "sha256") -> bytes:
    return hmac.digest(salt or bytes(hashlib.new(hash_).digest_size), material, hash_)


def _expand(prk: bytes, info: bytes, length: int, hash_: str = "sha256") -> bytes:
    if length > hashlib.new(hash_).digest_size:
        raise ValueError("one block is enough here")
    return hmac.digest(prk, info + b"\x01", hash_)[:length]


def _labeled(suite_id: bytes, label: bytes) -> bytes:
    return b"HPKE-v1" + suite_id + label


def _key_schedule(
    shared_secret: bytes, info: bytes, kem: int, kdf: int = _HKDF_SHA256, hash_: str = "sha256"
) -> tuple[bytes, bytes]:
    """Return key and nonce of mode_base (RFC 9180 section 5.1)."""
    numbers = (kem, kdf, _AES_256_GCM)
    suite_id = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in numbers)
    psk_id_hash = _extract(b"", _labeled(suite_id, b"psk_id_hash"), hash_)
    info_hash = _extract(b"", _labeled(suite_id, b"info_hash") + info, hash_)
    context = b"\x00" + psk_id_hash + info_hash
    secret = _extract(shared_secret, _labeled(suite_id, b"secret"), hash_)
    key = _expand(secret, b"\x00\x20" + _labeled(suite_id, b"key") + context, 32, hash_)
    nonce = _expand(secret, b"\x00\x0c" + _labeled(suite_id, b"base_nonce") + context, 12, hash_)
    return key, nonce


def _dhkem(shared: bytes, enc: bytes, recipient: Pair) -> bytes:
    """Return DHKEM's shared secret (RFC 9180 section 4.1)."""
    hash_ = recipient.curve.hash_
    size = hashlib.new(hash_).digest_size
    suite_id = b"KEM" + recipient.curve.kem.to_bytes(2, "big")
    eae_prk = _extract(b"", _labeled(suite_id, b"eae_prk") + shared, hash_)
    context = size.to_bytes(2, "big") + _labeled(suite_id, b"shared_secret")
    return _expand(eae_prk, context + enc + recipient.point, size, hash_)


def seal(plaintext: bytes, recipient: AnyPair, info: bytes, name: str) -> bytes:
    """Return what opens with the recipient's private key alone, all of it from the name."""
    return recipient.seal(plaintext, info, name)


def open_sealed(sealed: bytes, recipient: AnyPair, info: bytes) -> bytes:
    """Return what was sealed to a pair; InvalidTag where it does not open."""
    return recipient.open(sealed, info)


EPHEMERAL_SECRET = derived("ephemeral key of a request", 96)


def ephemeral_public(secret: bytes = EPHEMERAL_SECRET) -> bytes:
    """Return the Client's hybrid public key: ML-KEM-768 ‖ X25519."""
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:64]).public_key()
    curve = x25519.X25519PrivateKey.from_private_bytes(secret[64:]).public_key()
    return lattice.public_bytes_raw() + curve.public_bytes_raw()


def seal_session_key(session_key: bytes, info: bytes) -> bytes:
    """Return enc ‖ ciphertext of HPKE over MLKEM768-X25519 (X-Wing's combiner).

    Also of a response in custody `split`: the key depends on `info`.
    """
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(EPHEMERAL_SECRET[:64])
    sender = x25519.X25519PrivateKey.from_private_bytes(derived("session key ephemeral", 32))
    recipient = x25519.X25519PrivateKey.from_private_bytes(EPHEMERAL_SECRET[64:]).public_key()
    sent = sender.public_key().public_bytes_raw()
    combined = lattice.decapsulate(MLKEM_CIPHERTEXT) + sender.exchange(recipient) + sent
    combined += recipient.public_bytes_raw() + _XWING_LABEL
    key, nonce = _key_schedule(hashlib.sha3_256(combined).digest(), info, _MLKEM768_X25519)
    return MLKEM_CIPHERTEXT + sent + AESGCM(key).encrypt(nonce, session_key, b"")


def derive_secret(session_key: bytes, label: str, request_id: bytes) -> bytes:
    """Return the PSK ("ike-psk") or PPK ("ppk") of a session (HKDF, RFC 5869)."""
    return _expand(_extract(b"", session_key), encode(["carnet", 1, label, request_id]), 32)

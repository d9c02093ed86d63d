"""The protocol a second time, from its rules: keys, signature, seal, session key.

It shares no line with the product. Every key is derived from a name, and nothing
is random, so that the same vectors come out each time.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, utils, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.vectors.encoding import encode

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_DHKEM_P256 = 0x0010
_MLKEM768_X25519 = 0x647A
_HKDF_SHA256 = 0x0001
_AES_256_GCM = 0x0002
_ES256 = -7
_XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")
MLKEM_CIPHERTEXT = bytes.fromhex((Path(__file__).parent / "mlkem-ciphertext.hex").read_text())
"""The one part that is chosen at random: ML-KEM-768's encapsulation to EPHEMERAL_SECRET."""


def derived(name: str, length: int) -> bytes:
    """Return bytes that stand for a name."""
    return hashlib.shake_256(b"carnet vectors " + name.encode()).digest(length)


@dataclass(frozen=True)
class Pair:
    """A one-time key pair, or the officer's, derived from a name."""

    name: str
    curve: ec.EllipticCurve = field(default_factory=ec.SECP256R1)

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        scalar = int.from_bytes(derived(f"{self.name} scalar", 32), "big") % (_ORDER - 1) + 1
        return ec.derive_private_key(scalar, self.curve)

    @property
    def private_bytes(self) -> bytes:
        return self.private.private_numbers().private_value.to_bytes(32, "big")

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


def info_of(
    key_id: bytes, direction: str = "request", binding: bytes = b"", suite: int = 1
) -> bytes:
    """Return what seal and signature of a message are bound to."""
    return encode(["carnet", 1, direction, suite, key_id, binding])


def ecdsa(structure: bytes, pair: Pair) -> bytes:
    """Return the signature r ‖ s, deterministic (RFC 6979)."""
    der = pair.private.sign(structure, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return b"".join(part.to_bytes(32, "big") for part in utils.decode_dss_signature(der))


def sign1(payload: bytes, external_aad: bytes, pair: Pair, algorithm: int = _ES256) -> list[Any]:
    """Return the parts of a COSE_Sign1 (RFC 9052 section 4.2)."""
    protected = encode({1: algorithm})
    structure = encode(["Signature1", protected, external_aad, payload])
    return [protected, {}, payload, ecdsa(structure, pair)]


def _extract(salt: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), material, "sha256")


def _expand(prk: bytes, info: bytes, length: int) -> bytes:
    if length > hashlib.sha256().digest_size:
        raise ValueError("one block is enough here")
    return hmac.digest(prk, info + b"\x01", "sha256")[:length]


def _labeled(suite_id: bytes, label: bytes) -> bytes:
    return b"HPKE-v1" + suite_id + label


def _key_schedule(shared_secret: bytes, info: bytes, kem: int) -> tuple[bytes, bytes]:
    """Return key and nonce of mode_base (RFC 9180 section 5.1)."""
    numbers = (kem, _HKDF_SHA256, _AES_256_GCM)
    suite_id = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in numbers)
    psk_id_hash = _extract(b"", _labeled(suite_id, b"psk_id_hash"))
    info_hash = _extract(b"", _labeled(suite_id, b"info_hash") + info)
    context = b"\x00" + psk_id_hash + info_hash
    secret = _extract(shared_secret, _labeled(suite_id, b"secret"))
    key = _expand(secret, b"\x00\x20" + _labeled(suite_id, b"key") + context, 32)
    nonce = _expand(secret, b"\x00\x0c" + _labeled(suite_id, b"base_nonce") + context, 12)
    return key, nonce


def _dhkem(shared: bytes, enc: bytes, recipient: Pair) -> bytes:
    """Return DHKEM's shared secret (RFC 9180 section 4.1)."""
    suite_id = b"KEM" + _DHKEM_P256.to_bytes(2, "big")
    eae_prk = _extract(b"", _labeled(suite_id, b"eae_prk") + shared)
    context = enc + recipient.point
    return _expand(eae_prk, b"\x00\x20" + _labeled(suite_id, b"shared_secret") + context, 32)


def seal(plaintext: bytes, recipient: Pair, info: bytes, name: str) -> bytes:
    """Return enc ‖ ciphertext, with the ephemeral key that the name gives."""
    ephemeral = Pair(f"{name} ephemeral")
    shared = ephemeral.private.exchange(ec.ECDH(), recipient.private.public_key())
    key, nonce = _key_schedule(_dhkem(shared, ephemeral.point, recipient), info, _DHKEM_P256)
    return ephemeral.point + AESGCM(key).encrypt(nonce, plaintext, b"")


def open_sealed(sealed: bytes, recipient: Pair, info: bytes) -> bytes:
    """Return what was sealed to a pair; InvalidTag where it does not open."""
    enc, ciphertext = sealed[:65], sealed[65:]
    sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), enc)
    shared = recipient.private.exchange(ec.ECDH(), sender)
    key, nonce = _key_schedule(_dhkem(shared, enc, recipient), info, _DHKEM_P256)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


EPHEMERAL_SECRET = derived("ephemeral key of a request", 96)


def ephemeral_public(secret: bytes = EPHEMERAL_SECRET) -> bytes:
    """Return the Client's hybrid public key: ML-KEM-768 ‖ X25519."""
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:64]).public_key()
    curve = x25519.X25519PrivateKey.from_private_bytes(secret[64:]).public_key()
    return lattice.public_bytes_raw() + curve.public_bytes_raw()


def seal_session_key(session_key: bytes, info: bytes) -> bytes:
    """Return enc ‖ ciphertext of HPKE over MLKEM768-X25519 (X-Wing's combiner)."""
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

"""RSA a second time: OAEP and PSS from RFC 8017, with a seed and a salt that are given.

Libraries draw both at random; here the same vectors must come out each time. The keys in
keys/ were made for these vectors and are used for nothing else.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_KEYS = Path(__file__).parent / "keys"
OAEP_HASHES = {2: "sha256", 4: "sha1"}
"""The hash of OAEP, by suite."""


def derived(name: str, length: int) -> bytes:
    """Return bytes that stand for a name."""
    return hashlib.shake_256(b"carnet vectors " + name.encode()).digest(length)


def mgf1(seed: bytes, length: int, hash_: str) -> bytes:
    """Return a mask (RFC 8017 appendix B.2.1)."""
    mask = b""
    for counter in range(length):
        if len(mask) >= length:
            break
        mask += hashlib.new(hash_, seed + counter.to_bytes(4, "big")).digest()
    return mask[:length]


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def oaep_encode(
    message: bytes, length: int, hash_: str, seed_name: str, *, label: bytes = b"", mgf: str = ""
) -> bytes:
    """Return EME-OAEP (RFC 8017 section 7.1.1 step 2)."""
    digest = hashlib.new(hash_, label).digest()
    seed = derived(f"{seed_name} seed", len(digest))
    padding = bytes(length - len(message) - 2 * len(digest) - 2)
    block = digest + padding + b"\x01" + message
    masked = _xor(block, mgf1(seed, len(block), mgf or hash_))
    return b"\x00" + _xor(seed, mgf1(masked, len(seed), mgf or hash_)) + masked


def pss_encode(
    digest: bytes, length: int, *, salt: int = 32, mgf: str = "sha256", draw: int = 0
) -> bytes:
    """Return EMSA-PSS over a SHA-256 digest (RFC 8017 section 9.1.1); the salt is the digest's."""
    drawn = derived(f"salt {draw} {digest.hex()}", salt)
    hashed = hashlib.sha256(bytes(8) + digest + drawn).digest()
    block = bytes(length - salt - len(hashed) - 2) + b"\x01" + drawn
    masked = bytearray(_xor(block, mgf1(hashed, len(block), mgf)))
    masked[0] &= 0x7F
    return bytes(masked) + hashed + b"\xbc"


@dataclass(frozen=True)
class RsaPair:
    """A one-time pair of a suite of RSA; the key is a file, the same each time."""

    name: str
    suite: int
    algorithm: int = -37

    @cached_property
    def private(self) -> rsa.RSAPrivateKey:
        key = load_pem_private_key((_KEYS / f"{self.name}.pem").read_bytes(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key

    @property
    def private_bytes(self) -> bytes:
        return self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def modulus(self) -> int:
        return self.private.public_key().public_numbers().n

    @property
    def length(self) -> int:
        """Bytes of the modulus, of a signature and of what is encrypted."""
        return self.private.key_size // 8

    @property
    def spki(self) -> bytes:
        key = self.private.public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.spki).digest()[:16]

    def encrypt(self, encoded: bytes) -> bytes:
        """Return RSAEP of an encoded message (RFC 8017 section 5.1.1)."""
        number = pow(int.from_bytes(encoded, "big"), 65537, self.modulus)
        return number.to_bytes(self.length, "big")

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return RSADP of a ciphertext, encoded as it is (RFC 8017 section 5.1.2)."""
        key, number = self._numbers, int.from_bytes(ciphertext, "big")
        one, other = pow(number, key.dmp1, key.p), pow(number, key.dmq1, key.q)
        result = other + key.q * (key.iqmp * (one - other) % key.p)
        return result.to_bytes(self.length, "big")

    @cached_property
    def _numbers(self) -> rsa.RSAPrivateNumbers:
        return self.private.private_numbers()

    def sign(
        self, structure: bytes, *, salt: int = 32, mgf: str = "sha256", draw: int = 0
    ) -> bytes:
        """Return RSASSA-PSS (RFC 8017 section 8.1.1)."""
        digest = hashlib.sha256(structure).digest()
        return self.decrypt(pss_encode(digest, self.length, salt=salt, mgf=mgf, draw=draw))

    def plus_modulus(self, data: bytes) -> bytes | None:
        """Return the number with the modulus added, the same residue; None if it is too long."""
        number = int.from_bytes(data, "big") + self.modulus
        return number.to_bytes(self.length, "big") if number < 1 << 8 * self.length else None

    def encrypted_key(self, key: bytes, name: str, **changes: str | bytes) -> bytes:
        """Return RSAES-OAEP of a content key, as the suite has it unless it is changed."""
        hash_ = str(changes.pop("hash_", OAEP_HASHES[self.suite]))
        return self.encrypt(oaep_encode(key, self.length, hash_, name, **changes))  # type: ignore[arg-type]

    def seal(self, plaintext: bytes, info: bytes, name: str) -> bytes:
        """Return what opens with the private key alone."""
        key = derived(f"{name} content key", 32)
        sealed = AESGCM(key).encrypt(bytes(12), plaintext, info)
        return self.encrypted_key(key, name) + sealed

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed; InvalidTag where it does not open."""
        encoded = self.decrypt(sealed[: self.length])
        size = hashlib.new(OAEP_HASHES[self.suite]).digest_size
        masked = encoded[1 + size :]
        seed = _xor(encoded[1 : 1 + size], mgf1(masked, size, OAEP_HASHES[self.suite]))
        block = _xor(masked, mgf1(seed, len(masked), OAEP_HASHES[self.suite]))
        return AESGCM(block[-32:]).decrypt(bytes(12), sealed[self.length :], info)

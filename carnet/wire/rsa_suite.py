"""Suites of RSA pairs: RSAES-OAEP of a fresh AES-256-GCM key, and PS256 (RFC 8230 section 2).

The content key is used for one message, so its nonce may be constant. A ciphertext that
RSA does not decrypt is answered as one whose tag does not hold: it is opened with a key
made at random. So nobody learns from an answer how the padding was (the oracles of
Bleichenbacher and of Manger).
"""

import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carnet.wire.fault import Fault, WireError
from carnet.wire.suite import PrivateKey, Suite

MODULUS_BITS = (2048, 3072, 4096)
PUBLIC_EXPONENT = 65537
SALT_LENGTH = 32

_KEY = 32
_NONCE = bytes(12)
_TAG = 16
_LEAST = MODULUS_BITS[0] // 8


@dataclass(frozen=True, kw_only=True, eq=False)
class RsaSuite(Suite[rsa.RSAPublicKey]):
    """A suite of RSA keys: opening is the token's RSADP under OAEP, signing its PSS."""

    oaep: hashes.HashAlgorithm
    """Of OAEP and of its mask generation (RFC 8017 section 7.1); the label is empty."""

    def own(self, key: object) -> rsa.RSAPublicKey | None:
        """Return the key if it has one of the sizes, and the public exponent 65537."""
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in MODULUS_BITS:
            return None
        return key if key.public_numbers().e == PUBLIC_EXPONENT else None

    def seal(self, plaintext: bytes, public_key: rsa.RSAPublicKey, info: bytes) -> bytes:
        """Return RSAES-OAEP(content key) ‖ AES-256-GCM(content key, plaintext, info)."""
        content_key = secrets.token_bytes(_KEY)
        scheme = padding.OAEP(padding.MGF1(self.oaep), self.oaep, None)
        encrypted_key = public_key.encrypt(content_key, scheme)
        return encrypted_key + AESGCM(content_key).encrypt(_NONCE, plaintext, info)

    def check_sealed(self, sealed: bytes) -> None:
        """Check that it is as long as under the smallest modulus."""
        if len(sealed) < _LEAST + _TAG:
            raise WireError(Fault.SEAL, "too short for an encrypted key and a tag")

    def open_sealed(
        self, sealed: bytes, public_key: rsa.RSAPublicKey, key: PrivateKey, info: bytes
    ) -> bytes:
        """Decrypt the content key on the token, then open."""
        encrypted_key, ciphertext = _split(sealed, public_key)
        content_key = key.decrypt(encrypted_key, self.oaep)
        if content_key is None or len(content_key) != _KEY:
            content_key = secrets.token_bytes(_KEY)
        try:
            return AESGCM(content_key).decrypt(_NONCE, ciphertext, info)
        except (InvalidTag, ValueError):
            raise WireError(Fault.SEAL, "the seal does not open") from None

    def signature_length(self, public_key: rsa.RSAPublicKey) -> int:
        """Return the length of the modulus."""
        return _length(public_key)

    def verify(self, signature: bytes, digest: bytes, public_key: rsa.RSAPublicKey) -> bool:
        """Tell whether RSASSA-PSS, its salt as long as the digest, holds over a digest."""
        scheme = padding.PSS(padding.MGF1(self.hash), SALT_LENGTH)
        try:
            public_key.verify(signature, digest, scheme, utils.Prehashed(self.hash))
        except InvalidSignature:
            return False
        return True


def _split(sealed: bytes, public_key: rsa.RSAPublicKey) -> tuple[bytes, bytes]:
    """Return encrypted key and ciphertext; WireError (SEAL) for what RSA cannot have made."""
    length = _length(public_key)
    if len(sealed) < length + _TAG:
        raise WireError(Fault.SEAL, "too short for an encrypted key and a tag")
    encrypted_key, ciphertext = sealed[:length], sealed[length:]
    if int.from_bytes(encrypted_key, "big") >= public_key.public_numbers().n:
        raise WireError(Fault.SEAL, "the encrypted key is not below the modulus")
    return encrypted_key, ciphertext


def _length(public_key: rsa.RSAPublicKey) -> int:
    return public_key.key_size // 8

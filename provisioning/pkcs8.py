"""A private key under a passphrase: PKCS #8 (RFC 5958), encrypted under scrypt.

cryptography reads such a file but writes only PBKDF2 of 2048 rounds, which a stolen
file does not withstand; so its EncryptedPrivateKeyInfo is put together here.
"""

import base64
import os
import textwrap

from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ObjectIdentifier

_PBES2 = ObjectIdentifier("1.2.840.113549.1.5.13")
_SCRYPT = ObjectIdentifier("1.3.6.1.4.1.11591.4.11")
_AES_256_CBC = ObjectIdentifier("2.16.840.1.101.3.4.1.42")

# 16 MiB, five times over: as dear as the 128 MiB once that are usually advised, and
# within the 32 MiB at which OpenSSL's own tools give up.
_COST, _BLOCK_SIZE, _PARALLEL = 2**14, 8, 5
_KEY_SIZE = 32


@asn1.sequence
class _ScryptParameters:
    """RFC 7914 section 7."""

    salt: bytes
    cost: int
    block_size: int
    parallelization: int
    key_length: int


@asn1.sequence
class _KeyDerivation:
    algorithm: ObjectIdentifier
    parameters: _ScryptParameters


@asn1.sequence
class _Cipher:
    algorithm: ObjectIdentifier
    initialization_vector: bytes


@asn1.sequence
class _Pbes2Parameters:
    """RFC 8018 appendix A.4."""

    key_derivation: _KeyDerivation
    cipher: _Cipher


@asn1.sequence
class _Encryption:
    algorithm: ObjectIdentifier
    parameters: _Pbes2Parameters


@asn1.sequence
class _EncryptedPrivateKeyInfo:
    """RFC 5958 section 3."""

    encryption: _Encryption
    encrypted: bytes


def encrypt_key(key: ec.EllipticCurvePrivateKey, passphrase: str) -> bytes:
    """Return a private key as PEM that only the passphrase opens."""
    salt, vector = os.urandom(16), os.urandom(16)
    derivation = Scrypt(salt=salt, length=_KEY_SIZE, n=_COST, r=_BLOCK_SIZE, p=_PARALLEL)
    info = _EncryptedPrivateKeyInfo(
        encryption=_describe(salt, vector),
        encrypted=_encrypt(key, derivation.derive(passphrase.encode()), vector),
    )
    return _pem(asn1.encode_der(info))


def _encrypt(key: ec.EllipticCurvePrivateKey, secret: bytes, vector: bytes) -> bytes:
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    padder = padding.PKCS7(algorithms.AES.block_size).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(vector)).encryptor()
    return encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()


def _describe(salt: bytes, vector: bytes) -> _Encryption:
    scrypt = _ScryptParameters(
        salt=salt,
        cost=_COST,
        block_size=_BLOCK_SIZE,
        parallelization=_PARALLEL,
        key_length=_KEY_SIZE,
    )
    parameters = _Pbes2Parameters(
        key_derivation=_KeyDerivation(algorithm=_SCRYPT, parameters=scrypt),
        cipher=_Cipher(algorithm=_AES_256_CBC, initialization_vector=vector),
    )
    return _Encryption(algorithm=_PBES2, parameters=parameters)


def _pem(der: bytes) -> bytes:
    """Wrap in the textual encoding of RFC 7468 section 11."""
    lines = textwrap.wrap(base64.b64encode(der).decode("ascii"), 64)
    name = "ENCRYPTED PRIVATE KEY"
    return "\n".join((f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", "")).encode()

"""What every suite can do, whichever keys it is made of.

A suite knows which public keys are its own, how a message is sealed to one of them
and opened again, and how a signature is made of a digest. The private key is on a
token: a suite asks it for what the token can do, and does the rest in software.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from carnet.wire.fault import Fault, WireError

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
K = TypeVar("K", ec.EllipticCurvePublicKey, rsa.RSAPublicKey)


class PrivateKey(Protocol):
    """The private half of a one-time pair, wherever it is; a suite uses what its keys have."""

    def sign(self, digest: bytes) -> bytes:
        """Return the raw signature over a digest: ECDSA's r ‖ s, or RSASSA-PSS."""

    def agree(self, point: bytes) -> bytes:
        """Return ECDH's x-coordinate with an uncompressed point (EC keys)."""

    def decrypt(self, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes | None:
        """Return what RSAES-OAEP with this hash encrypted (RSA keys); None if it does not open."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Suite(ABC, Generic[K]):
    """The algorithms of one suite; sizes in bytes."""

    number: int
    name: str
    """What operators call it in a configuration file."""
    hash: hashes.HashAlgorithm
    """Of the signature."""
    cose_algorithm: int
    """COSE algorithm identifier (RFC 9053 section 2.1, RFC 8230 section 2)."""

    def load_public_key(self, public_key: bytes) -> K:
        """Return the key in a DER SubjectPublicKeyInfo; WireError (FIELD) if not of this suite.

        Only the one encoding that minting gives is taken: a key_id is a digest of it.
        """
        try:
            key = serialization.load_der_public_key(public_key)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise WireError(Fault.FIELD, "not a public key") from error
        mine = self.own(key)
        if mine is None:
            raise WireError(Fault.FIELD, f"not a public key of suite {self.number}")
        if encode_public_key(mine) != public_key:
            raise WireError(Fault.FIELD, "a public key in another form than its own")
        return mine

    @abstractmethod
    def own(self, key: object) -> K | None:
        """Return the key if it is one of this suite."""

    @abstractmethod
    def seal(self, plaintext: bytes, public_key: K, info: bytes) -> bytes:
        """Return what only the pair's private key opens, and only for this `info`."""

    @abstractmethod
    def check_sealed(self, sealed: bytes) -> None:
        """Raise WireError (SEAL) for what cannot open, as far as it shows without the pair."""

    @abstractmethod
    def open_sealed(self, sealed: bytes, public_key: K, key: PrivateKey, info: bytes) -> bytes:
        """Return the plaintext sealed to a pair for this `info`.

        Raises WireError (SEAL) for whatever does not open. What check_sealed() refuses, and
        what the public key shows to be impossible, never reaches the token.
        """

    @abstractmethod
    def signature_length(self, public_key: K) -> int:
        """Return how long every signature of this key is."""

    @abstractmethod
    def verify(self, signature: bytes, digest: bytes, public_key: K) -> bool:
        """Tell whether a signature of the right length holds over a digest."""

    def digest(self, data: bytes) -> bytes:
        """Return the digest that is signed."""
        digest = hashes.Hash(self.hash)
        digest.update(data)
        return digest.finalize()


def encode_public_key(key: PublicKey) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a key."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

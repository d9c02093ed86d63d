"""What every type of key pair can do on a token, whichever arithmetic is behind it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, MechanismFlag

from carnet.token.session import TokenSession

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class PairType(ABC):
    """One type of key pair: how it is made, read, used and tried."""

    key_type: ClassVar[KeyType]
    use: ClassVar[MechanismFlag]
    """What the private key of a one-time pair may be used for."""

    def __init__(self, name: str) -> None:
        self.name = name
        """As officers write it, such as ec-p256."""

    @abstractmethod
    def is_of(self, key: object) -> bool:
        """Tell whether a public key is of this type."""

    @abstractmethod
    def read(self, public: Any) -> PublicKey:
        """Return the key in a public key object; raises ValueError if not of this type."""

    @abstractmethod
    def is_whole(self, private: Any) -> bool:
        """Tell whether a private key object has what this type is known by."""

    @abstractmethod
    def public_attributes(self, key: Any) -> dict[Attribute, Any]:
        """Return what a public key object holds besides what all have in common."""

    @abstractmethod
    def private_attributes(self, use: MechanismFlag) -> dict[Attribute, Any]:
        """Return which uses a private key object names."""

    @abstractmethod
    def generate(
        self,
        session: TokenSession,
        use: MechanismFlag,
        public: dict[Attribute, Any],
        private: dict[Attribute, Any],
    ) -> tuple[Any, Any]:
        """Generate a session pair; return its public and private half."""

    @abstractmethod
    def sign(self, private: Any, digest: bytes) -> bytes:
        """Return the raw signature over a digest."""

    @abstractmethod
    def prove_signing(self, private: Any, key: Any) -> bool:
        """Sign a digest; tell whether the signature is the key's.

        Raises TokenCannotError where the token does not sign with such keys.
        """

    @abstractmethod
    def prove(self, private: Any, key: Any, oaep: hashes.HashAlgorithm | None) -> bool:
        """Use the private key in every way that is asked of it; tell whether it is the key's.

        Raises TokenCannotError for a use that the token does not have.
        """


def spki_of(key: PublicKey) -> bytes:
    """Return a key's DER SubjectPublicKeyInfo."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

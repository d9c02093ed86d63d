"""RSA pairs on a token: RSASSA-PSS to sign, RSAES-OAEP to decrypt (RFC 8017)."""

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

import pkcs11
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag
from pkcs11.constants import DEFAULT
from pkcs11.mechanisms import MGF
from pkcs11.types import DecryptMixin

from carnet.errors import TokenCannotError
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.translation import tells_of_token, tried

_PUBLIC_EXPONENT = 65537
_PSS_HASH = hashes.SHA256()
_PSS = (Mechanism.SHA256, MGF.SHA256, _PSS_HASH.digest_size)
_TRIAL_SIZE = 32

OAEP_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "sha-256": hashes.SHA256(),
    "sha-1": hashes.SHA1(),  # noqa: S303 - some tokens' OAEP has no other
}
"""The hashes that OAEP may have, by the officer's name for them; the strongest first."""

_OAEP = {
    "sha256": (Mechanism.SHA256, MGF.SHA256, None),
    "sha1": (Mechanism.SHA_1, MGF.SHA1, None),
}
"""CK_RSA_PKCS_OAEP_PARAMS by pyca's name of the hash; the label is empty."""


class RsaType(PairType):
    """Pairs with a modulus of one size."""

    key_type: ClassVar[KeyType] = KeyType.RSA
    use: ClassVar[MechanismFlag] = MechanismFlag.SIGN | MechanismFlag.DECRYPT

    def __init__(self, name: str, bits: int) -> None:
        super().__init__(name)
        self.bits = bits

    def is_of(self, key: object) -> bool:
        """Tell whether a public key has this size, and the public exponent 65537."""
        return (
            isinstance(key, rsa.RSAPublicKey)
            and key.key_size == self.bits
            and key.public_numbers().e == _PUBLIC_EXPONENT
        )

    def read(self, public: Any) -> rsa.RSAPublicKey:
        """Return the key in a public key object; raises ValueError if not of this type."""
        modulus = int.from_bytes(public[Attribute.MODULUS], "big")
        exponent = int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big")
        if modulus.bit_length() != self.bits or exponent != _PUBLIC_EXPONENT:
            raise ValueError(f"This key is not of {self.name}.")
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()

    def is_whole(self, private: Any) -> bool:
        """Tell whether a private key object has a modulus of this size."""
        return int.from_bytes(private[Attribute.MODULUS], "big").bit_length() == self.bits

    def public_attributes(self, key: rsa.RSAPublicKey) -> dict[Attribute, Any]:
        """Return modulus and public exponent."""
        return {
            Attribute.MODULUS: key.public_numbers().n.to_bytes(self.bits // 8, "big"),
            Attribute.PUBLIC_EXPONENT: _PUBLIC_EXPONENT.to_bytes(3, "big"),
        }

    def private_attributes(self, use: MechanismFlag) -> dict[Attribute, Any]:
        """Return whether the private key signs, and whether it decrypts."""
        return {
            Attribute.SIGN: MechanismFlag.SIGN in use,
            Attribute.DECRYPT: MechanismFlag.DECRYPT in use,
            Attribute.DERIVE: DEFAULT,
        }

    def generate(
        self,
        session: TokenSession,
        use: MechanismFlag,
        public: dict[Attribute, Any],
        private: dict[Attribute, Any],
    ) -> tuple[Any, Any]:
        """Generate a session pair of this size."""
        with tried(f"make a key pair of type {self.name}"):
            return session.raw.generate_keypair(
                KeyType.RSA,
                self.bits,
                capabilities=use,
                public_template=public,
                private_template=private,
            )

    def sign(self, private: Any, digest: bytes) -> bytes:
        """Return RSASSA-PSS over a SHA-256 digest: MGF1 with SHA-256, 32 bytes of salt."""
        return bytes(private.sign(digest, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=_PSS))

    def decrypt(self, private: Any, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes | None:
        """Return what RSAES-OAEP encrypted with this hash; None if it does not decrypt.

        Tokens have many codes for a ciphertext that does not decrypt, so every one means
        that which does not speak of the token itself: whoever sent the ciphertext may
        learn nothing more.
        """
        try:
            return self._decrypt(private, ciphertext, oaep)
        except pkcs11.PKCS11Error as error:
            if tells_of_token(error):
                raise
            return None

    def prove(self, private: Any, key: rsa.RSAPublicKey, oaep: hashes.HashAlgorithm | None) -> bool:
        """Sign a digest and decrypt with this hash of OAEP; tell whether both are the key's."""
        if oaep is None:
            raise ValueError("An RSA pair is tried with the hash of OAEP that it is for.")
        return self.prove_signing(private, key) and self._decrypts(private, key, oaep)

    def prove_signing(self, private: Any, key: rsa.RSAPublicKey) -> bool:
        """Sign a digest; tell whether the signature is the key's."""
        digest = secrets.token_bytes(_PSS_HASH.digest_size)
        with tried(f"sign by RSASSA-PSS with a key of type {self.name}"):
            signature = self.sign(private, digest)
        return _verifies(key, digest, signature)

    def can_decrypt(self, private: Any, key: rsa.RSAPublicKey, oaep: hashes.HashAlgorithm) -> bool:
        """Try whether the token's OAEP has this hash."""
        try:
            return self._decrypts(private, key, oaep)
        except TokenCannotError:
            return False

    def _decrypts(self, private: Any, key: rsa.RSAPublicKey, oaep: hashes.HashAlgorithm) -> bool:
        plaintext = secrets.token_bytes(_TRIAL_SIZE)
        ciphertext = key.encrypt(plaintext, padding.OAEP(padding.MGF1(oaep), oaep, None))
        with tried(f"decrypt RSAES-OAEP with {oaep.name}"):
            return self._decrypt(private, ciphertext, oaep) == plaintext

    def _decrypt(self, private: Any, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes:
        _check_decrypts(private)
        parameters = _OAEP[oaep.name]
        return bytes(
            private.decrypt(
                ciphertext, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=parameters
            )
        )


def _check_decrypts(private: object) -> None:
    if not isinstance(private, DecryptMixin):
        raise TokenCannotError("The key on the token signs and does not decrypt.")


def _verifies(key: rsa.RSAPublicKey, digest: bytes, signature: bytes) -> bool:
    scheme = padding.PSS(padding.MGF1(_PSS_HASH), _PSS_HASH.digest_size)
    try:
        key.verify(signature, digest, scheme, utils.Prehashed(_PSS_HASH))
    except InvalidSignature:
        return False
    return True

"""Elliptic-curve pairs on a token: ECDSA to sign, ECDH to agree.

Every point is checked to lie on its curve before a token sees it.
"""

import secrets
from functools import cached_property
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import KDF, Attribute, KeyType, Mechanism, MechanismFlag
from pkcs11.constants import DEFAULT
from pkcs11.types import DeriveMixin

from carnet.errors import TokenCannotError
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.translation import tried

_UNCOMPRESSED = 0x04
_OCTET_STRING = 0x04


class EcType(PairType):
    """Pairs on one curve."""

    key_type: ClassVar[KeyType] = KeyType.EC
    use: ClassVar[MechanismFlag] = MechanismFlag.SIGN | MechanismFlag.DERIVE

    def __init__(
        self, name: str, parameters: bytes, curve: ec.EllipticCurve, hash_: hashes.HashAlgorithm
    ) -> None:
        super().__init__(name)
        self.parameters = parameters
        """CKA_EC_PARAMS: the curve's object identifier in DER (RFC 5480 section 2.1.1.1)."""
        self.curve = curve
        self.hash = hash_
        """Whose digests its keys sign."""

    @property
    def coordinate_size(self) -> int:
        """Bytes of one coordinate, and of the ECDH shared secret."""
        return (self.curve.key_size + 7) // 8

    @property
    def point_size(self) -> int:
        """Bytes of an uncompressed point."""
        return 1 + 2 * self.coordinate_size

    def is_of(self, key: object) -> bool:
        """Tell whether a public key is on this curve."""
        return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == self.curve.name

    def load_point(self, point: bytes) -> ec.EllipticCurvePublicKey:
        """Return the key of an uncompressed point; raises ValueError if not on this curve."""
        if len(point) != self.point_size or point[0] != _UNCOMPRESSED:
            raise ValueError(f"This is no uncompressed point of {self.name}.")
        return ec.EllipticCurvePublicKey.from_encoded_point(self.curve, point)

    def read(self, public: Any) -> ec.EllipticCurvePublicKey:
        """Return the key in a public key object; raises ValueError if not on this curve."""
        told = public.get_attributes((Attribute.EC_PARAMS, Attribute.EC_POINT))
        point = told.get(Attribute.EC_POINT)
        if told.get(Attribute.EC_PARAMS) != self.parameters or point is None:
            raise ValueError(f"This key is not of {self.name}.")
        # Some modules leave out the OCTET STRING that CKA_EC_POINT should be wrapped in.
        header = bytes((_OCTET_STRING, self.point_size))
        wrapped = len(point) > self.point_size
        return self.load_point(point.removeprefix(header) if wrapped else point)

    def is_whole(self, private: Any) -> bool:
        """Tell whether a private key object has this curve."""
        return bool(private[Attribute.EC_PARAMS] == self.parameters)

    def public_attributes(self, key: ec.EllipticCurvePublicKey) -> dict[Attribute, Any]:
        """Return the curve and the point."""
        point = point_of(key)
        return {
            Attribute.EC_PARAMS: self.parameters,
            Attribute.EC_POINT: bytes((_OCTET_STRING, len(point))) + point,
        }

    def private_attributes(self, use: MechanismFlag) -> dict[Attribute, Any]:
        """Return whether the private key signs, and whether it agrees."""
        return {
            Attribute.SIGN: MechanismFlag.SIGN in use,
            Attribute.DERIVE: MechanismFlag.DERIVE in use,
            Attribute.DECRYPT: DEFAULT,
        }

    def generate(
        self,
        session: TokenSession,
        use: MechanismFlag,
        public: dict[Attribute, Any],
        private: dict[Attribute, Any],
    ) -> tuple[Any, Any]:
        """Generate a session pair on the curve."""
        parameters = session.raw.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: self.parameters}, local=True
        )
        with tried(f"make a key pair of type {self.name}"):
            return parameters.generate_keypair(
                capabilities=use, public_template=public, private_template=private
            )

    def sign(self, private: Any, digest: bytes) -> bytes:
        """Return the ECDSA signature, r and s side by side (RFC 9053 section 2.1)."""
        return bytes(private.sign(digest, mechanism=Mechanism.ECDSA))

    def agree(self, private: Any, peer_point: bytes) -> bytes:
        """Return the x-coordinate of the ECDH shared point (RFC 9180 section 4.1).

        Raises ValueError, before the token sees it, for a point that is not on the curve,
        TokenCannotError for a key that was made to sign only.
        """
        self.load_point(peer_point)
        if not isinstance(private, DeriveMixin):
            raise TokenCannotError("The key on the token signs and does not agree by ECDH.")
        secret = private.derive_key(
            KeyType.GENERIC_SECRET,
            self.coordinate_size * 8,
            capabilities=MechanismFlag(0),
            mechanism=Mechanism.ECDH1_DERIVE,
            mechanism_param=(KDF.NULL, None, peer_point),
            template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True},
        )
        try:
            return bytes(secret[Attribute.VALUE])
        finally:
            secret.destroy()

    def prove(
        self, private: Any, key: ec.EllipticCurvePublicKey, oaep: hashes.HashAlgorithm | None
    ) -> bool:
        """Sign a digest and agree with a key made for it; tell whether both are the key's.

        That key serves for all trials of a process: what is new in each is the pair.
        """
        if oaep is not None:
            raise ValueError("An EC pair has no OAEP to be tried with.")
        if not self.prove_signing(private, key):
            return False
        peer, point = self._peer
        with tried(f"agree by ECDH with a key of type {self.name}"):
            agreed = self.agree(private, point)
        return agreed == peer.exchange(ec.ECDH(), key)

    @cached_property
    def _peer(self) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
        peer = ec.generate_private_key(self.curve)
        return peer, point_of(peer.public_key())

    def prove_signing(self, private: Any, key: ec.EllipticCurvePublicKey) -> bool:
        """Sign a digest; tell whether the signature is the key's."""
        digest = secrets.token_bytes(self.hash.digest_size)
        with tried(f"sign with a key of type {self.name}"):
            signature = self.sign(private, digest)
        return self._verifies(key, digest, signature)

    def _verifies(self, key: ec.EllipticCurvePublicKey, digest: bytes, signature: bytes) -> bool:
        half = len(signature) // 2
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        try:
            prehashed = ec.ECDSA(utils.Prehashed(self.hash))
            key.verify(utils.encode_dss_signature(r, s), digest, prehashed)
        except InvalidSignature:
            return False
        return True


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a key as an uncompressed point."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

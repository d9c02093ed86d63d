"""Suites of elliptic-curve pairs: HPKE (RFC 9180) and ECDSA (RFC 9053 section 2.1)."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils

from carnet.wire import hpke
from carnet.wire.suite import PrivateKey, Suite


@dataclass(frozen=True, kw_only=True, eq=False)
class EcSuite(Suite[ec.EllipticCurvePublicKey]):
    """A suite of one curve: opening is the token's ECDH, signing its ECDSA."""

    kem: hpke.Ciphers

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve that the suite's keys are on."""
        return self.kem.curve

    @property
    def coordinate(self) -> int:
        """Length of a field element."""
        return self.kem.coordinate

    def own(self, key: object) -> ec.EllipticCurvePublicKey | None:
        """Return the key if it is on the suite's curve."""
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == self.curve.name:
            return key
        return None

    def seal(self, plaintext: bytes, public_key: ec.EllipticCurvePublicKey, info: bytes) -> bytes:
        """Return enc ‖ ciphertext (RFC 9180 section 6.1)."""
        return hpke.seal(plaintext, public_key, info, self.kem)

    def check_sealed(self, sealed: bytes) -> None:
        """Check the length, and that the encapsulated key is a point of the curve."""
        hpke.check_sealed(sealed, self.kem)

    def open_sealed(
        self,
        sealed: bytes,
        public_key: ec.EllipticCurvePublicKey,
        key: PrivateKey,
        info: bytes,
    ) -> bytes:
        """Decapsulate on the token, then open (RFC 9180 section 6.1)."""
        return hpke.open_sealed(sealed, public_key, key.agree, info, self.kem)

    def signature_length(self, public_key: ec.EllipticCurvePublicKey) -> int:
        """Return the length of r ‖ s."""
        return 2 * ((public_key.key_size + 7) // 8)

    def verify(
        self, signature: bytes, digest: bytes, public_key: ec.EllipticCurvePublicKey
    ) -> bool:
        """Tell whether r ‖ s holds over a digest."""
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        try:
            public_key.verify(
                utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(self.hash))
            )
        except InvalidSignature:
            return False
        return True

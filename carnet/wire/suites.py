"""The suites: which keys a one-time pair has, how it seals and how it signs.

Suites 2 (RSA) and 3 (P-384) have their numbers in the protocol but no entry
here yet: a message that names one is refused, like any suite that is unknown.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.wire.fault import Fault, WireError


@dataclass(frozen=True)
class Suite:
    """The algorithms of one suite; sizes in bytes."""

    number: int
    curve: ec.EllipticCurve
    hash: hashes.HashAlgorithm
    cose_algorithm: int
    """COSE algorithm identifier (RFC 9053 section 2.1)."""
    coordinate: int
    """Length of a field element, and half of that of a signature."""
    kem_id: int
    kdf_id: int
    aead_id: int
    seals: hpke.Suite
    """What seals; the opening needs the token and is carnet.wire.hpke's."""

    @property
    def point(self) -> int:
        """Length of an uncompressed point."""
        return 1 + 2 * self.coordinate


P256 = Suite(
    number=1,
    curve=ec.SECP256R1(),
    hash=hashes.SHA256(),
    cose_algorithm=-7,
    coordinate=32,
    kem_id=0x0010,
    kdf_id=0x0001,
    aead_id=0x0002,
    seals=hpke.Suite(hpke.KEM.P256, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
)

SUITES = {suite.number: suite for suite in (P256,)}


def find_suite(number: int) -> Suite:
    """Return the suite of that number; raises WireError (SUITE) where there is none."""
    try:
        return SUITES[number]
    except KeyError:
        raise WireError(Fault.SUITE, "a suite that is not served") from None

"""The suites: which keys a one-time pair has, how it seals and how it signs.

Each hash that a token's OAEP may be limited to has a suite of its own. Who seals has to
know the hash beforehand; the number is in what seal and signature are bound to, and is
what the operator allows or forbids. So nobody on the way can choose the weaker one.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import hpke as library
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.wire import hpke
from carnet.wire.ec_suite import EcSuite
from carnet.wire.fault import Fault, WireError
from carnet.wire.rsa_suite import RsaSuite
from carnet.wire.suite import Suite

AnySuite = Suite[Any]


class SuiteName(StrEnum):
    """How people name the suites."""

    P256 = "p-256"
    RSA = "rsa"
    P384 = "p-384"
    RSA_SHA1 = "rsa-sha1"


ALL_SUITES = tuple(SuiteName)
"""What agents serve unless told otherwise. A pair's suite is the officer's word, on the
batch and in the Key Database, so that a stranger cannot choose the least of them."""

P256 = EcSuite(
    number=1,
    name=SuiteName.P256,
    hash=hashes.SHA256(),
    cose_algorithm=-7,
    kem=hpke.Ciphers(
        curve=ec.SECP256R1(),
        coordinate=32,
        hash=hashes.SHA256(),
        kem_id=0x0010,
        kdf_id=0x0001,
        aead_id=0x0002,
        seals=library.Suite(library.KEM.P256, library.KDF.HKDF_SHA256, library.AEAD.AES_256_GCM),
    ),
)

RSA = RsaSuite(
    number=2,
    name=SuiteName.RSA,
    hash=hashes.SHA256(),
    cose_algorithm=-37,
    oaep=hashes.SHA256(),
)

P384 = EcSuite(
    number=3,
    name=SuiteName.P384,
    hash=hashes.SHA384(),
    cose_algorithm=-35,
    kem=hpke.Ciphers(
        curve=ec.SECP384R1(),
        coordinate=48,
        hash=hashes.SHA384(),
        kem_id=0x0011,
        kdf_id=0x0002,
        aead_id=0x0002,
        seals=library.Suite(library.KEM.P384, library.KDF.HKDF_SHA384, library.AEAD.AES_256_GCM),
    ),
)

RSA_SHA1 = RsaSuite(
    number=4,
    name=SuiteName.RSA_SHA1,
    hash=hashes.SHA256(),
    cose_algorithm=-37,
    # OAEP does not rest on collisions being hard to find (RFC 8017 appendix B.1); there
    # are tokens, SoftHSM2 among them, whose OAEP has no other hash.
    oaep=hashes.SHA1(),  # noqa: S303
)

SUITES: dict[int, AnySuite] = {suite.number: suite for suite in (P256, RSA, P384, RSA_SHA1)}


def find_suite(number: int) -> AnySuite:
    """Return the suite of that number; raises WireError (SUITE) where there is none."""
    try:
        return SUITES[number]
    except KeyError:
        raise WireError(Fault.SUITE, "a suite that is not served") from None


def suite_of_key(public_key: bytes, named: int) -> AnySuite:
    """Return the suite of a pair by its key; of several that fit, the one named beside it.

    An EC key has one suite. An RSA key has one for each hash that OAEP may have, and
    does not tell which. Raises WireError: FIELD for a key of no suite, SUITE where
    the one that is named does not fit.
    """
    fitting = [suite for suite in SUITES.values() if _takes(suite, public_key)]
    if not fitting:
        raise WireError(Fault.FIELD, "a public key of no suite")
    if len(fitting) == 1:
        return fitting[0]
    for suite in fitting:
        if suite.number == named:
            return suite
    raise WireError(Fault.SUITE, "a key of several suites, of which none is named")


def numbers_of(names: Iterable[SuiteName]) -> frozenset[int]:
    """Return the numbers of suites by their names."""
    wanted = frozenset(names)
    return frozenset(suite.number for suite in SUITES.values() if suite.name in wanted)


def name_of(number: int) -> str:
    """Return what people call a suite; its number where it is none of ours."""
    return SUITES[number].name if number in SUITES else str(number)


def _takes(suite: AnySuite, public_key: bytes) -> bool:
    try:
        suite.load_public_key(public_key)
    except WireError:
        return False
    return True

"""Why a tunnel ended: Target's signed word to the traveller, whoever carries it.

She has no key of Target's. But she has the security officer's, who certified Target for
the Host-Target link: so Target signs with the key of the link, and sends along the
certificates that lead from there to the officer. The word names one Request ID, so that
none serves for another tunnel, and cannot be made by Host or by anybody on the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from carnet.wire import cbor, cose
from carnet.wire.documents import Ending, ProvedEnding, sign_document, verify_document
from carnet.wire.fault import Fault, WireError

MAX_ENDING = 8 * 1024
"""Bytes of a signed ending with its certificates."""


def prove_ending(
    ending: Ending, sign: cose.Sign, certificate: x509.Certificate, authority: x509.Certificate
) -> bytes:
    """Return the ending, signed with the key of that certificate (Target's, of the link)."""
    return cbor.pack(
        ProvedEnding(
            signed=sign_document(ending, sign),
            certificate=certificate.public_bytes(serialization.Encoding.DER),
            authority=authority.public_bytes(serialization.Encoding.DER),
        )
    )


def verify_ending(data: bytes, request_id: bytes, target: str, officer_key: bytes) -> Ending:
    """Return what Target says of the end of this very tunnel.

    `officer_key` is the officer's public key (DER SPKI), under which her cover was verified.
    Raises WireError for whatever is not the word of the Target of that name.
    """
    proved = cbor.unpack(data, ProvedEnding, MAX_ENDING)
    with _refusing("not certificates of the officer's"):
        certificate = x509.load_der_x509_certificate(proved.certificate)
        authority = x509.load_der_x509_certificate(proved.authority)
        key = certificate.public_key()
        _check_authority(authority, officer_key)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise WireError(Fault.SUITE, "signed with another algorithm")
    ending = verify_document(proved.signed, Ending, key)
    with _refusing("not certified as this Target"):
        _check_certificate(certificate, authority, target, ending.ended_at)
    if ending.request_id != request_id:
        raise WireError(Fault.BINDING, "of another tunnel")
    return ending


_REFUSALS = (
    *(InvalidSignature, UnsupportedAlgorithm, VerificationError),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
    *(ValueError, TypeError, OverflowError, OSError),
)


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn what the library finds wrong with a certificate, when it looks, into a WireError."""
    try:
        yield
    except _REFUSALS as error:
        raise WireError(Fault.SIGNATURE, what) from error


def _check_authority(authority: x509.Certificate, officer_key: bytes) -> None:
    """Refuse what is not the officer's own certificate, as she signed it herself."""
    if _spki(authority) != officer_key:
        raise WireError(Fault.SIGNATURE, "certified by another than the officer")
    authority.verify_directly_issued_by(authority)


def _check_certificate(
    certificate: x509.Certificate, authority: x509.Certificate, target: str, moment: int
) -> None:
    """Refuse what was not a TLS server's of that name at that moment (RFC 5280 section 6)."""
    policy = PolicyBuilder().store(Store([authority])).time(datetime.fromtimestamp(moment, UTC))
    policy = policy.extension_policies(ca_policy=_AUTHORITY, ee_policy=_AGENT)
    policy.build_server_verifier(x509.DNSName(target)).verify(certificate, [])


def _check_usage(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage) -> None:
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        raise ValueError("not a server's")


_AUTHORITY = ExtensionPolicy.webpki_defaults_ca()
_AGENT = ExtensionPolicy.webpki_defaults_ee().require_present(
    x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _check_usage
)
"""As on the web, but for the extended key usage, which is critical here."""


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

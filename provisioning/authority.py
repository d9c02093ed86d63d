"""The certificate authority of the Host-Target link (X.509, RFC 5280).

An agent's certificate carries its name as its one DNS subjectAltName. A Host's is good
for a TLS client only and a Target's for a server only, so that neither can pose as the
other.
"""

from datetime import UTC, datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from carnet.errors import UsageError
from carnet.interface import interface_name

_CLOCK_SKEW = timedelta(minutes=5)


class Role(Enum):
    """What an agent's certificate is for: its end of the link, or the Host's own interface."""

    HOST = "host"
    TARGET = "target"
    INTERFACE = "interface"
    """The Host's, toward the officer."""

    @property
    def usage(self) -> x509.ObjectIdentifier:
        """The extended key usage."""
        if self is Role.HOST:
            return ExtendedKeyUsageOID.CLIENT_AUTH
        return ExtendedKeyUsageOID.SERVER_AUTH

    def name_of(self, agent: str) -> str:
        """Return the name in the certificate: on its interface a Host has one of no Target."""
        return interface_name(agent) if self is Role.INTERFACE else agent


def officer_certificate(
    key: ec.EllipticCurvePrivateKey, name: str, lifetime: timedelta
) -> x509.Certificate:
    """Return the officer's self-signed certificate, from which no other authority can come."""
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), key.public_key(), lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def agent_certificate(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    agent_key: ec.EllipticCurvePublicKey,
    agent: str,
    role: Role,
    lifetime: timedelta,
) -> x509.Certificate:
    """Return the certificate of a Host or a Target, signed with the officer's key.

    Raises UsageError if it would outlive the officer's own.
    """
    if datetime.now(UTC) + lifetime > authority.not_valid_after_utc:
        raise UsageError(
            f"The officer's certificate ends on {authority.not_valid_after_utc:%Y-%m-%d}; "
            f"choose fewer days."
        )
    builder = _builder(_name(agent), authority.subject, agent_key, key.public_key(), lifetime)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(sign_certificates=False), True),
        (x509.ExtendedKeyUsage([role.usage]), True),
        (x509.SubjectAlternativeName([x509.DNSName(role.name_of(agent))]), False),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(identifier, critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )

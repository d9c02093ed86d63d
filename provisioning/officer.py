"""The security officer: one P-256 key, under her passphrase.

With it she is the certificate authority of the Host-Target link and signs covers and
batches. What she signs as the one cannot be taken for the other: a TBSCertificate
begins as a DER SEQUENCE (0x30), a Sig_structure as a CBOR array (0x84).
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from carnet.errors import UsageError
from carnet.files import read_private, read_small
from carnet.wire.documents import sign_document
from carnet.wire.fields import Message
from carnet.wire.keys import encode_public_key
from carnet.wire.suites import P256
from provisioning.authority import officer_certificate
from provisioning.output import make_directory, write_new
from provisioning.pkcs8 import encrypt_key

KEY_FILE = "officer.key"
CERTIFICATE_FILE = "officer.crt"


@dataclass(frozen=True)
class Officer:
    """The officer at work: her key is open."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def verification_key(self) -> ec.EllipticCurvePublicKey:
        """By which covers and batches are verified."""
        return self.key.public_key()

    @property
    def public_key(self) -> bytes:
        """The same, as DER SubjectPublicKeyInfo."""
        return encode_public_key(self.verification_key)

    @property
    def certificate_pem(self) -> bytes:
        """What Host and Target have to trust."""
        return self.certificate.public_bytes(Encoding.PEM)

    def sign(self, document: Message) -> bytes:
        """Return a cover or a batch under her signature (COSE_Sign1)."""
        return sign_document(document, self._sign_digest)

    def _sign_digest(self, digest: bytes) -> bytes:
        der = self.key.sign(digest, ec.ECDSA(utils.Prehashed(P256.hash)))
        return b"".join(n.to_bytes(P256.coordinate) for n in utils.decode_dss_signature(der))


def create_officer(directory: Path, passphrase: str, name: str, lifetime: timedelta) -> Officer:
    """Make the officer's key and certificate, and keep them in the directory.

    Raises UsageError if there are some already, or if the directory cannot be written.
    """
    check_passphrase(passphrase)
    key = ec.generate_private_key(P256.curve)
    officer = Officer(key, officer_certificate(key, name, lifetime))
    make_directory(directory)
    write_new(directory / KEY_FILE, encrypt_key(key, passphrase))
    write_new(directory / CERTIFICATE_FILE, officer.certificate_pem)
    return officer


def check_passphrase(passphrase: str) -> None:
    """Raise UsageError for the empty passphrase."""
    if not passphrase:
        raise UsageError("The officer's passphrase is empty; give one.")


def check_created(directory: Path) -> None:
    """Raise UsageError if the directory holds no officer's key."""
    if not (directory / KEY_FILE).is_file():
        raise UsageError(
            f"There is no officer's key in {directory}; run `carnet-provision init`, "
            f"or name the right directory with --directory."
        )


def load_officer(directory: Path, passphrase: str) -> Officer:
    """Open the officer's key.

    Raises UsageError if it is not there, if the passphrase does not open it, or if it
    is not the certificate's.
    """
    check_created(directory)
    check_passphrase(passphrase)
    key = _open_key(directory / KEY_FILE, passphrase)
    certificate = _read_certificate(directory / CERTIFICATE_FILE)
    if certificate.public_key() != key.public_key():
        raise UsageError(
            f"{KEY_FILE} and {CERTIFICATE_FILE} in {directory} do not belong together; "
            f"restore both from one backup."
        )
    return Officer(key, certificate)


def public_key_of(directory: Path) -> bytes:
    """Return the officer's public key, for which no passphrase is needed; raises UsageError."""
    key = _read_certificate(directory / CERTIFICATE_FILE).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _open_key(path: Path, passphrase: str) -> ec.EllipticCurvePrivateKey:
    pem = read_private(path, "the officer's key")
    try:
        key = load_pem_private_key(pem, passphrase.encode())
    except (ValueError, TypeError) as error:
        raise UsageError(f"The passphrase does not open {path}; check it and try again.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != P256.curve.name:
        raise UsageError(f"{path} holds no P-256 key; restore it from a backup.")
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_small(path))
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is no certificate; restore it from a backup.") from error

"""A security officer whose key opens at once, where a test is not of how it is kept."""

from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from provisioning.authority import officer_certificate
from provisioning.officer import CERTIFICATE_FILE, KEY_FILE, Officer
from provisioning.output import make_directory, write_new


def make_officer(directory: Path, passphrase: str) -> Officer:
    """Make what `carnet-provision init` makes, with the key under a light key derivation.

    By scrypt, as that command keeps it, each later one takes an eighth of a second of processor
    time to open it; the tests open such keys by the hundred.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    officer = Officer(key, officer_certificate(key, "officer", timedelta(days=3650)))
    under = BestAvailableEncryption(passphrase.encode())
    make_directory(directory)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, under)
    write_new(directory / KEY_FILE, pem)
    write_new(directory / CERTIFICATE_FILE, officer.certificate_pem)
    return officer

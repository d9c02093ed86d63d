"""`init` and `certificates`: the officer's key, and certificates for the Host-Target link."""

from datetime import timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from carnet.console import print_json
from carnet.errors import UsageError
from carnet.files import read_small
from carnet.interface import is_interface_name
from carnet.wire.fields import Name
from provisioning.authority import Role, agent_certificate
from provisioning.checks import checked
from provisioning.officer import CERTIFICATE_FILE, KEY_FILE, Officer, create_officer
from provisioning.options import Station, json_option, officer_options
from provisioning.output import check_absent, make_directory, write_new

LINK_KEY = "link.key"
LINK_CERTIFICATE = "link.crt"

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_MAX_SUBJECT = 64
_days = click.IntRange(1, 36500)


@click.command()
@click.option("--name", default="Carnet security officer", help="Subject of the certificate.")
@click.option("--days", type=_days, default=3650, show_default=True, help="Validity.")
@officer_options
@json_option
def init(station: Station, name: str, days: int, as_json: bool) -> None:
    """Make the officer's key and certificate."""
    directory = station.directory
    check_absent(directory / KEY_FILE, directory / CERTIFICATE_FILE)
    if not 0 < len(name) <= _MAX_SUBJECT:
        raise UsageError(f"--name has 1 to {_MAX_SUBJECT} characters; choose another.")
    passphrase = station.read_passphrase(confirm=True)
    officer = create_officer(directory, passphrase, name, timedelta(days=days))
    _report(officer.certificate, directory / CERTIFICATE_FILE, as_json=as_json)


@click.command()
@click.argument("role", type=click.Choice(Role, case_sensitive=False))
@click.argument("name")
@click.option(
    "--out",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where {LINK_KEY}, {LINK_CERTIFICATE} and {CERTIFICATE_FILE} go.",
)
@click.option(
    "--csr",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Sign the key of this request (PEM) and make none.",
)
@click.option("--days", type=_days, default=730, show_default=True, help="Validity.")
@officer_options
@json_option
def certificates(
    station: Station,
    role: Role,
    name: str,
    out: Path,
    csr: Path | None,
    days: int,
    as_json: bool,
) -> None:
    """Certify a Host or a Target for the link between them, or a Host's interface to you.

    A Host's NAME is what stands behind the @ of its users; a Target's is what users
    ask for.
    """
    if is_interface_name(name):
        raise UsageError(f"{name} is what Hosts are called on their interface; choose another.")
    checked(name, Name, f"{name!r} is no agent's name; use lower-case letters, digits, . and -.")
    check_absent(out / LINK_KEY, out / LINK_CERTIFICATE, out / CERTIFICATE_FILE)
    requested = None if csr is None else _requested_key(csr)
    officer = station.officer()
    certificate = _issue(officer, role, name, timedelta(days=days), requested, out)
    _report(certificate, out / LINK_CERTIFICATE, as_json=as_json)


def _issue(
    officer: Officer,
    role: Role,
    name: str,
    lifetime: timedelta,
    requested: ec.EllipticCurvePublicKey | None,
    out: Path,
) -> x509.Certificate:
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = agent_certificate(
        officer.key, officer.certificate, requested or own.public_key(), name, role, lifetime
    )
    make_directory(out)
    if requested is None:
        write_new(out / LINK_KEY, _link_key(own))
    write_new(out / LINK_CERTIFICATE, certificate.public_bytes(Encoding.PEM))
    write_new(out / CERTIFICATE_FILE, officer.certificate_pem)
    return certificate


def _link_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    # In the clear, as an agent that starts unattended needs it.
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _requested_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(read_small(path))
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UsageError(f"{path} is no certificate request in PEM; have it made anew.") from error
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise UsageError(f"The key in {path} is not on P-256 or P-384; have one made that is.")
    if not request.is_signature_valid:
        raise UsageError(f"{path} is not signed with its own key; have it made anew.")
    return key


def _report(certificate: x509.Certificate, path: Path, *, as_json: bool) -> None:
    facts = {
        "certificate": path,
        "subject": certificate.subject.rfc4514_string(),
        "not_after": certificate.not_valid_after_utc.date(),
        "sha256": certificate.fingerprint(hashes.SHA256()),
    }
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{path} is good until {facts['not_after']} ({facts['subject']}).")

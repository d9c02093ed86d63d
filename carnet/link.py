"""The Host-Target link: mutually authenticated TLS 1.3, and who is at the other end.

An agent's certificate carries its name as its one DNS subjectAltName: a Host's is
the part of a user ID behind the @, a Target's the name that users ask for.
"""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carnet.config import Section
from carnet.errors import UsageError
from carnet.files import read_private, read_small

if TYPE_CHECKING:
    from cryptography import x509


class LinkSection(Section, frozen=True, kw_only=True):
    """An agent's certificate on the link, in its configuration file."""

    certificate: Path
    key: Path
    authority: Path


def server_context(link: LinkSection) -> ssl.SSLContext:
    """Return Target's side: whoever calls must show a certificate of this authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _furnish(context, link)


def client_context(link: LinkSection) -> ssl.SSLContext:
    """Return Host's side; the name it checks is the Target's, never its address."""
    return _furnish(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), link)


def peer_name(transport: Any) -> str | None:
    """Return the name in the peer's certificate, None where it shows none."""
    certificate = transport.get_extra_info("peercert") or {}
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
    return names[0] if len(names) == 1 else None


def check_name(link: LinkSection, role: str, name: str) -> None:
    """Raise UsageError unless the link's certificate is the one of that agent.

    Who is at the other end would find out no sooner than a key pair was spent.
    """
    from cryptography import x509  # noqa: PLC0415  where an agent starts

    try:
        certificate = x509.load_pem_x509_certificate(read_small(link.certificate))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{link.certificate} is no certificate that can be read; ask the security officer for "
            f"a new one."
        ) from error
    names = names_in(certificate)
    if names != [name]:
        raise UsageError(
            f"{link.certificate} is the certificate of {', '.join(names) or 'nobody'}, and `name` "
            f"is {name}; correct it, or ask the security officer for that of "
            f"`carnet-provision certificates {role} {name}`."
        )


def names_in(certificate: "x509.Certificate") -> list[str]:
    """Return the DNS names that a certificate carries."""
    from cryptography import x509  # noqa: PLC0415  likewise

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(extension.value.get_values_for_type(x509.DNSName))


async def read_at_most(stream: Any, limit: int) -> bytes:
    """Return the whole body from an aiohttp stream, or, of a longer one, limit + 1 bytes.

    What decodes the body then refuses it by its length.
    """
    body = b""
    while len(body) <= limit and (chunk := await stream.read(limit + 1 - len(body))):
        body += chunk
    return body


def _furnish(context: ssl.SSLContext, link: LinkSection) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    read_private(link.key, "the private key of the link")
    try:
        context.load_verify_locations(cafile=link.authority)
        context.load_cert_chain(link.certificate, link.key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The certificates of the Host-Target link cannot be used ({link.certificate}, "
            f"{link.key}, {link.authority}): {error}; ask the security officer for new ones."
        ) from error
    return context

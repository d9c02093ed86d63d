"""The key of the Host-Target link, where Target signs with it: its accounts, its endings."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from carnet.errors import TokenError, UsageError
from carnet.files import read_private, read_small
from carnet.link import LinkSection

_CURVE = "secp256r1"


@dataclass(frozen=True)
class Signer:
    """A private key of whatever kind; only one on P-256 signs."""

    key: object

    def sign(self, digest: bytes) -> bytes:
        """Return the raw signature, r ‖ s; raises TokenError for a key that is not on P-256."""
        key = self.key
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != _CURVE:
            raise TokenError("The link's key is not on P-256; nothing is signed with it.")
        signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        r, s = utils.decode_dss_signature(signature)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass(frozen=True)
class LinkKey(Signer):
    """The private key with its certificate, and the officer's."""

    certificate: x509.Certificate
    authority: x509.Certificate


def load_signer(link: LinkSection) -> Signer:
    """Return what signs with the link's key; raises UsageError if it cannot be read."""
    pem = read_private(link.key, "the private key of the link")
    try:
        return Signer(serialization.load_pem_private_key(pem, None))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{link.key} is no private key in PEM without a passphrase.") from error


def load_link_key(link: LinkSection) -> LinkKey:
    """Return the link's key with its certificates; raises UsageError if one cannot be read."""
    signer = load_signer(link)
    try:
        certificate, authority = (
            x509.load_pem_x509_certificate(read_small(path))
            for path in (link.certificate, link.authority)
        )
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The certificates of the link cannot be read ({link.certificate}, {link.authority});"
            " correct the paths."
        ) from error
    return LinkKey(signer.key, certificate, authority)

"""Which algorithms a Target proposes: named profiles, as strongSwan writes them, best first."""

from dataclasses import dataclass
from enum import StrEnum


class Profile(StrEnum):
    """The name of a set of proposals."""

    MODERN = "modern"
    CNSA = "cnsa"
    """P-384, AES-256 and SHA-384 alone, after the NSA's CNSA suite (RFC 9206)."""
    PAPER = "paper"
    """The paper's own MD5, SHA-1 and 3DES: broken, and for benchmarks only."""


@dataclass(frozen=True)
class ProposalSet:
    """Proposals for IKE, ESP and AH."""

    ike: tuple[str, ...]
    esp: tuple[str, ...]
    ah: tuple[str, ...]


_MODERN = ProposalSet(
    ike=(
        "aes256gcm16-prfsha384-x25519",
        "aes256gcm16-prfsha256-x25519",
        "chacha20poly1305-prfsha256-x25519",
        "aes256gcm16-prfsha384-ecp384",
        "aes256gcm16-prfsha256-ecp256",
    ),
    esp=(
        "aes256gcm16-x25519",
        "chacha20poly1305-x25519",
        "aes256gcm16-ecp384",
        "aes256gcm16-ecp256",
    ),
    ah=("sha256-x25519", "sha384-x25519", "sha384-ecp384", "sha256-ecp256"),
)

PROFILES = {
    Profile.MODERN: _MODERN,
    Profile.CNSA: ProposalSet(
        ike=("aes256gcm16-prfsha384-ecp384",),
        esp=("aes256gcm16-ecp384",),
        ah=("sha384-ecp384",),
    ),
    # IKE stays as it is: what the paper measures are packets.
    Profile.PAPER: ProposalSet(
        ike=_MODERN.ike,
        esp=("3des-md5", "3des-sha1"),
        ah=("md5", "sha1"),
    ),
}

_IKEV1 = ProposalSet(
    ike=(
        "aes256-sha384-ecp384",
        "aes256-sha256-ecp256",
        "aes256-sha256-modp3072",
        "aes256-sha256-modp2048",
    ),
    esp=(
        "aes256gcm16-ecp384",
        "aes256-sha256-ecp256",
        "aes256-sha256-modp3072",
        "aes256-sha256-modp2048",
    ),
    ah=("sha256-ecp384", "sha256-ecp256", "sha256-modp3072", "sha256-modp2048"),
)

IKEV1_PROFILES = {
    Profile.MODERN: _IKEV1,
    Profile.CNSA: ProposalSet(
        ike=("aes256-sha384-ecp384",),
        esp=("aes256gcm16-ecp384",),
        ah=("sha384-ecp384",),
    ),
    Profile.PAPER: ProposalSet(
        ike=_IKEV1.ike,
        esp=("3des-md5", "3des-sha1"),
        ah=("md5", "sha1"),
    ),
}
"""For Clients that have IKEv1 alone: it has no AEAD for itself, and some of them have no
elliptic curves."""

"""The Target's configuration file."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from carnet.config import Section, load_config
from carnet.link import LinkSection
from carnet.wire.fields import (
    Address,
    Name,
    Network,
    Seconds,
    Token,
    check_addresses,
    check_networks,
)
from carnet.wire.suites import ALL_SUITES, SuiteName

DEFAULT_PATH = Path("/etc/carnet/target.toml")
PATH_VARIABLE = "CARNET_TARGET_CONFIG"

IKE_PROPOSALS = (
    "aes256gcm16-prfsha384-x25519",
    "aes256gcm16-prfsha256-x25519",
    "chacha20poly1305-prfsha256-x25519",
    "aes256gcm16-prfsha384-ecp384",
    "aes256gcm16-prfsha256-ecp256",
)
ESP_PROPOSALS = (
    "aes256gcm16-x25519",
    "chacha20poly1305-x25519",
    "aes256gcm16-ecp384",
    "aes256gcm16-ecp256",
)


class TunnelsSection(Section, frozen=True, kw_only=True):
    """What every tunnel of this Target has in common."""

    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=8)]
    """Where the Client's IKE finds this Target."""
    networks: Annotated[tuple[Network, ...], Meta(min_length=1, max_length=32)]
    """What is behind it; nobody is granted anything else."""
    virtual_addresses: Network
    """The pool of which each tunnel gets one address."""
    dns: Annotated[tuple[Address, ...], Meta(max_length=8)] = ()
    mtu: Annotated[int, Meta(ge=576, le=65535)] | None = None
    ike_proposals: Annotated[tuple[Token, ...], Meta(min_length=1, max_length=8)] = IKE_PROPOSALS
    esp_proposals: Annotated[tuple[Token, ...], Meta(min_length=1, max_length=8)] = ESP_PROPOSALS
    require_ppk: bool = True
    """Whether a Client without post-quantum pre-shared keys (RFC 8784) is refused."""
    force_udp: bool = False
    initiate_within: Seconds = 120
    """Seconds after which a tunnel that nobody initiates is withdrawn."""

    def __post_init__(self) -> None:
        """Raise ValueError for what is no address or network, or of two IP versions."""
        check_addresses(self.addresses + self.dns)
        check_networks((*self.networks, self.virtual_addresses))
        inside = {ip_network(n).version for n in (*self.networks, self.virtual_addresses)}
        if len(inside) != 1:
            raise ValueError("networks and virtual_addresses must be of one IP version")


class StrongSwanSection(Section, frozen=True, kw_only=True):
    """The IKE daemon."""

    socket: Path | None = None
    """Its VICI socket; left out: where strongSwan puts it."""


class TargetConfig(Section, frozen=True, kw_only=True):
    """All of the file; paths are relative to it."""

    name: Name
    listen: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    directory: Path
    link: LinkSection
    tunnels: TunnelsSection
    suites: Annotated[tuple[SuiteName, ...], Meta(min_length=1)] = ALL_SUITES
    strongswan: StrongSwanSection = StrongSwanSection()

    @property
    def database(self) -> Path:
        """The file of membership, access control list, tunnels and accounts."""
        return self.directory / "target.sqlite"

    @property
    def control_socket(self) -> Path:
        """Where the service takes orders of this machine's operator."""
        return self.directory / "control.sock"

    @property
    def lock(self) -> Path:
        """Whoever holds it, and nobody else, changes tunnels."""
        return self.directory / "lock"


def load(path: Path) -> TargetConfig:
    """Return the configuration; raises UsageError."""
    return load_config(path, TargetConfig)

"""The helper's configuration file; most machines have none, and need none."""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from msgspec import Meta

from carnet.config import NotEmpty, Section, load_config

DEFAULT_PATH = Path("/etc/carnet/helper.toml")


class Network(str):
    """A network in CIDR notation."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, _: Path) -> Self:
        """Read it. Raises ValueError for one that is none."""
        ip_network(text)
        return cls(text)


_PRIVATE = tuple(
    map(Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""Networks that are nobody's on the Internet (RFC 1918, RFC 6598, RFC 4193)."""


class HelperConfig(Section, frozen=True, kw_only=True):
    """All of the file; every key may be left out."""

    directory: Path = Path("/run/carnet-helper")
    """Where it keeps whose each tunnel is; in memory, and root's alone."""
    socket: Path = Path("/run/carnet-helper/socket")
    group: NotEmpty = "carnet"
    """Who may connect, beside root."""
    driver: Literal["strongswan", "libreswan"] = "strongswan"
    """Which IPsec implementation this machine has."""
    vici: Path | None = None
    """strongSwan's VICI socket."""
    networks: tuple[Network, ...] = _PRIVATE
    """Networks that tunnels of ordinary users may lead to, or to parts of them: what leads
    into one user's tunnel is led there for all users of this machine."""
    targets: tuple[Network, ...] = (Network("0.0.0.0/0"), Network("::/0"))
    """Networks that Targets may be in."""
    ikev1_targets: tuple[Network, ...] = ()
    """Networks of Targets to which there are tunnels with IKEv1: their keys are looked up by
    Target's address alone, also for another connection of this machine to there."""
    virtual_addresses: tuple[Network, ...] = _PRIVATE
    """Networks that the addresses of their tunnels may be in: such an address is this
    machine's while the tunnel stands, for all users."""
    name_servers: bool = False
    """Whether the name servers of an ordinary user's tunnel are used, by all of this machine."""
    assigned_name_servers: bool = False
    """Whether tunnels are made while strongSwan's plugin `resolve` is loaded, by which whoever
    is a Target sets the name servers of all of this machine."""
    tunnels_per_user: Annotated[int, Meta(ge=1, le=64)] = 4


def load(path: Path) -> HelperConfig:
    """Return the configuration, empty where the usual file is not there. Raises UsageError."""
    if path == DEFAULT_PATH and not path.exists():
        return HelperConfig()
    return load_config(path, HelperConfig)

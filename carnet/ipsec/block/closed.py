"""What a block closes, and what a packet filter must be able to do for it."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Protocol

import msgspec

IKE_PORTS = (500, 4500)
DHCP_PORTS = (67, 547)
"""Of the servers, of IPv4 and IPv6: without a lease there is no way to Target either."""


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """What must not leave in clear while one session is meant to live, and what may.

    What carries the tunnel itself may: IKE, ESP and AH to Target. So may requests to the
    Hosts, which protect themselves: a new tunnel must be had while the old one is down.
    """

    name: str
    """The tunnel's."""
    networks: tuple[str, ...]
    """In CIDR notation; Target's own addresses in transport mode."""
    targets: tuple[str, ...]
    """Target's addresses, as numbers."""
    hosts: tuple[tuple[str, int], ...]
    """Addresses, as numbers, and TCP ports of the Hosts."""
    userspace: bool
    """Whether ESP is the IKE daemon's own, behind a tun device, and not the kernel's."""


class HeldBack(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel has of a block: what it holds back, and what leaves all the same."""

    networks: frozenset[str]
    """In CIDR notation, a single address too."""
    targets: frozenset[str] = frozenset()
    """Addresses to which IKE, ESP and AH leave."""
    hosts: frozenset[tuple[str, int]] = frozenset()
    """Addresses and TCP ports."""


class PacketFilter(Protocol):
    """One packet filter of this machine. What it keeps outlives whoever told it."""

    name: str

    def works(self) -> bool:
        """Whether it can be told here all that a block needs.

        Raises IPsecError if that is to be had of somebody who is not there, as in all of these.
        """

    def close(self, closed: Closed) -> None:
        """Close, in one step for each IP version; a block of that name is replaced.

        Raises IPsecError if it does not take the rules.
        """

    def lift(self, name: str) -> None:
        """Take the block of that tunnel out; none is no error. Raises IPsecError."""

    def names(self) -> frozenset[str]:
        """Return the tunnels that have a block here. Raises IPsecError where it does not tell."""

    def held_back(self) -> dict[str, HeldBack]:
        """Return what the blocks here hold back, by tunnel, but for those that it cannot know of.

        Raises IPsecError where it does not tell.
        """


def version_of(network: str) -> int:
    """Return the IP version of an address or network."""
    return ip_network(network).version


def of_version(version: int, networks: Sequence[str]) -> list[str]:
    """Return those of one IP version."""
    return [network for network in networks if version_of(network) == version]

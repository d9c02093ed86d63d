"""The kernel's packet filter, as far as the gate needs it: one interface, two ways to it.

Whatever comes in by an outside interface, without IPsec, for what is guarded, is
dropped, unless its source and destination are open. Replies to what was begun from
inside pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_network
from socket import socket
from typing import Protocol


class FirewallName(StrEnum):
    """Which packet filter."""

    NFT = "nft"
    IPTABLES = "iptables"
    """For kernels whose nftables know nothing of IP."""


@dataclass(frozen=True)
class Guarded:
    """What is closed to all who come from outside: networks behind Target, ports of its own."""

    outside: tuple[str, ...]
    networks: tuple[str, ...]
    ports: tuple[int, ...]


@dataclass(frozen=True, order=True)
class Opening:
    """From one address to one network, until that moment (seconds since 1970)."""

    source: str
    network: str
    until: float


Path = tuple[str, str]
"""An opening without its time: source and network, both written as networks."""


@lru_cache(1 << 14)
def path(source: str, network: str) -> Path:
    """Return both as they can be compared, however a packet filter writes them."""
    return str(ip_network(source)), str(ip_network(network))


@dataclass(frozen=True)
class Seen:
    """What the kernel has of the gate."""

    rules: str
    """All but the openings, the same while it stands; empty if nothing is left."""
    openings: frozenset[Path]


class Firewall(Protocol):
    """One packet filter of this machine; raises IPsecError where it refuses."""

    def guard(self, guarded: Guarded, openings: Iterable[Opening]) -> None:
        """Close what is guarded but for these openings, in one step; what was, is replaced."""

    def open_only(self, openings: Iterable[Opening]) -> None:
        """Leave open just these, in one step; each until its moment, if the kernel can."""

    def seen(self) -> Seen:
        """Return what the kernel has of it; nothing if the packet filter does not say."""

    def changes(self) -> socket | None:
        """Return what can be read whenever any rules change; None where nothing tells.

        The caller closes it. Raises OSError.
        """

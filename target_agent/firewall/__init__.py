"""The kernel's packet filter, as far as the gate needs it: one interface, two ways to it.

Whatever comes in by an outside interface, without IPsec, for what is guarded, is
dropped, unless its source and destination are open. Replies to what was begun from
inside pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
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


class Firewall(Protocol):
    """One packet filter of this machine; raises IPsecError where it refuses."""

    def guard(self, guarded: Guarded, openings: Iterable[Opening]) -> None:
        """Close what is guarded but for these openings, in one step; what was, is replaced."""

    def open_only(self, openings: Iterable[Opening]) -> None:
        """Leave open just these, in one step; each until its moment, if the kernel can."""

    def seen(self) -> str:
        """Return what the kernel has of it, the openings left out; the same while it stands.

        Empty if nothing is left, or the packet filter does not say.
        """

    def changes(self) -> socket | None:
        """Return what can be read whenever any rules change; None where nothing tells.

        The caller closes it. Raises OSError.
        """

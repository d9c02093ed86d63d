"""Who is let through without IPsec: Objective-ID 1, while her session lasts.

She has an IKE_SA, which proves at which address she is; that address, and no other, is
open to the networks that were granted, until the session ends. When this agent begins, it
shuts the gate, and opens it again for the sessions that stand. While it does not run, the
gate stays as it was. While it runs, a gate that somebody took away is made anew.
"""

import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from socket import socket

import structlog

from carnet.errors import IPsecError
from target_agent.config import TargetConfig
from target_agent.firewall import Firewall, FirewallName, Guarded, Opening
from target_agent.firewall.iptables import Iptables
from target_agent.firewall.nft import Nft

log = structlog.get_logger()


class Gate:
    """The openings of all sessions without IPsec; safe to use from several threads.

    Every method raises IPsecError if the packet filter refuses. What was not opened is
    closed then; what was not closed is tried again with the next change.
    """

    def __init__(self, firewall: Firewall, guarded: Guarded) -> None:
        self._firewall = firewall
        self._guarded = guarded
        self._sessions: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._lock = threading.Lock()
        self._made = ""
        self.count_gone: Callable[[], None] = lambda: None
        """Told each time that it was found gone."""

    def shut(self) -> None:
        """Close it for all, as a service does that begins."""
        with self._lock:
            self._make({})

    def restore(self) -> None:
        """Make it anew where somebody took it away, for the sessions that stand."""
        with self._lock:
            if not self._stands():
                self._make_anew(self._sessions)

    def changes(self) -> socket | None:
        """Return what can be read whenever it may have gone; None where nothing tells.

        The caller closes it. Raises OSError.
        """
        return self._firewall.changes()

    def open(self, name: str, source: str, networks: tuple[str, ...]) -> None:
        """Let one address through to these networks, for the session of that name."""
        with self._lock:
            self._change(self._sessions | {name: (source, networks)})

    def close(self, name: str) -> None:
        """Let that session through no more; one that was not let through is no error."""
        with self._lock:
            if name in self._sessions:
                kept = {other: each for other, each in self._sessions.items() if other != name}
                self._change(kept)

    def _change(self, sessions: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        try:
            self._firewall.open_only(_openings(sessions.values()))
        except IPsecError:
            if self._stands():
                raise
            self._make_anew(sessions)
        self._sessions = sessions

    def _stands(self) -> bool:
        return self._made != "" and self._firewall.seen() == self._made

    def _make_anew(self, sessions: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        log.warning("gate-gone", open_for=len(sessions))
        self.count_gone()
        self._make(sessions)

    def _make(self, sessions: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        self._made = ""
        self._firewall.guard(self._guarded, _openings(sessions.values()))
        self._sessions = sessions
        self._made = self._firewall.seen()


def make_gate(config: TargetConfig) -> Gate | None:
    """Return the gate that the configuration describes, if it does."""
    if config.gate is None:
        return None
    firewall = Nft() if config.gate.firewall is FirewallName.NFT else Iptables()
    guarded = Guarded(config.gate.outside, config.tunnels.networks, config.gate.ports)
    return Gate(firewall, guarded)


def _openings(sessions: Iterable[tuple[str, tuple[str, ...]]]) -> list[Opening]:
    """Return all openings, of one address none inside another: a set takes no overlap."""
    of_source: dict[str, set[str]] = {}
    for source, networks in sessions:
        of_source.setdefault(source, set()).update(networks)
    return sorted(
        Opening(source, str(network))
        for source, networks in of_source.items()
        for network in _collapsed(networks, ip_network(source).version)
    )


def _collapsed(networks: Iterable[str], version: int) -> list[IPv4Network | IPv6Network]:
    """Return networks of the source's own IP version: nothing else ever comes from there."""
    parsed = [ip_network(network) for network in networks]
    if version == 4:  # noqa: PLR2004
        return [*collapse_addresses(each for each in parsed if isinstance(each, IPv4Network))]
    return [*collapse_addresses(each for each in parsed if isinstance(each, IPv6Network))]

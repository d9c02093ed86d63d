"""Who is let through without IPsec: Objective-ID 1, while her session lasts.

She has an IKE_SA, which proves at which address she is; that address, and no other, is
open to the networks that were granted, until the session ends. When this agent begins, it
shuts the gate, and opens it again for the sessions that stand. While it does not run, the
gate stays as it was, but nftables close each opening when its session's time is over. While
it runs, a gate that somebody took away or changed is made anew.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import socket

import structlog

from carnet.errors import IPsecError
from target_agent.config import TargetConfig
from target_agent.firewall import Firewall, FirewallName, Guarded, Opening, Path, path
from target_agent.firewall.iptables import Iptables
from target_agent.firewall.nft import Nft

log = structlog.get_logger()


LAST_SECONDS = 5.0
"""Of an opening, in which the kernel may have closed it already: its clock is another."""


@dataclass(frozen=True)
class _Session:
    source: str
    networks: tuple[str, ...]
    until: float


_Network = IPv4Network | IPv6Network
_Sessions = dict[str, _Session]
"""Who is let through, by the session's name."""


class Gate:
    """The openings of all sessions without IPsec; safe to use from several threads.

    Every method raises IPsecError if the packet filter refuses. What was not opened is
    closed then; what was not closed is tried again with the next change.
    """

    def __init__(self, firewall: Firewall, guarded: Guarded) -> None:
        self._firewall = firewall
        self._guarded = guarded
        self._sessions: _Sessions = {}
        self._until: dict[Path, float] = {}
        self._lock = threading.Lock()
        self._made = ""
        self.count_gone: Callable[[], None] = lambda: None
        """Told each time that it was found gone."""

    def shut(self) -> None:
        """Close it for all, as a service does that begins."""
        with self._lock:
            self._make({})

    def guard(self, networks: tuple[str, ...]) -> None:
        """Guard these networks instead, in one step; who has a session is let through as before.

        Where the packet filter refuses, those that were guarded stay so.
        """
        with self._lock:
            before = self._guarded
            if networks == before.networks:
                return
            self._guarded = replace(before, networks=networks)
            try:
                self._make(self._sessions)
            except IPsecError:
                self._guarded = before
                raise

    def restore(self) -> None:
        """Make it anew where somebody took it away or changed it, for the sessions that stand.

        In one step: what they have is open all the time, if it was.
        """
        with self._lock:
            if not self._stands():
                self._make_anew(self._sessions)

    def changes(self) -> socket | None:
        """Return what can be read whenever it may have gone; None where nothing tells.

        The caller closes it. Raises OSError.
        """
        return self._firewall.changes()

    def open(self, name: str, source: str, networks: tuple[str, ...], until: float) -> None:
        """Let one address through to these networks, for the session of that name.

        Its time is over at `until`, in seconds since 1970.
        """
        with self._lock:
            self._change(self._sessions | {name: _Session(source, networks, until)})

    def close(self, name: str) -> None:
        """Let that session through no more; one that was not let through is no error."""
        with self._lock:
            if name in self._sessions:
                kept = {other: each for other, each in self._sessions.items() if other != name}
                self._change(kept)

    def _change(self, sessions: _Sessions) -> None:
        openings = _openings(sessions.values())
        try:
            self._firewall.open_only(openings)
        except IPsecError:
            if self._stands():
                raise
            self._make_anew(sessions)
        else:
            self._remember(sessions, openings)

    def _remember(self, sessions: _Sessions, openings: Iterable[Opening]) -> None:
        self._sessions = sessions
        self._until = {path(each.source, each.network): each.until for each in openings}

    def _stands(self) -> bool:
        seen = self._firewall.seen()
        soon = time.time() + LAST_SECONDS
        lasting = {path for path, until in self._until.items() if until > soon}
        is_open = lasting <= seen.openings <= self._until.keys()
        return self._made != "" and seen.rules == self._made and is_open

    def _make_anew(self, sessions: _Sessions) -> None:
        log.warning("gate-gone", open_for=len(sessions))
        self.count_gone()
        self._make(sessions)

    def _make(self, sessions: _Sessions) -> None:
        self._made = ""
        openings = _openings(sessions.values())
        self._firewall.guard(self._guarded, openings)
        found = self._firewall.seen().rules
        # What somebody took away meanwhile is not to be taken for the whole from then on.
        self._firewall.guard(self._guarded, openings)
        self._remember(sessions, openings)
        made = self._firewall.seen().rules
        self._made = made if made == found else ""


def make_gate(config: TargetConfig) -> Gate | None:
    """Return the gate that the configuration describes, if it does."""
    if config.gate is None:
        return None
    firewall = Nft() if config.gate.firewall is FirewallName.NFT else Iptables()
    guarded = Guarded(config.gate.outside, config.tunnels.networks, config.gate.ports)
    return Gate(firewall, guarded)


def _openings(sessions: Iterable[_Session]) -> list[Opening]:
    """Return all openings, of one address none inside another: a set takes no overlap.

    What several sessions have is open until the last of them ends, and no more than that.
    """
    found: list[Opening] = []
    covered: defaultdict[str, list[_Network]] = defaultdict(list)
    granted = [(each, network) for each in sessions for network in _of_own_version(each)]
    # The longest first, and of those the widest: what comes later adds what is left over.
    granted.sort(key=lambda each: (-each[0].until, each[1].prefixlen))
    for session, network in granted:
        parts = _uncovered(network, covered[session.source])
        covered[session.source] += parts
        found += [Opening(session.source, str(part), session.until) for part in parts]
    return sorted(found)


def _of_own_version(session: _Session) -> list[_Network]:
    """Return networks of the source's own IP version: nothing else ever comes from there."""
    version = ip_network(session.source).version
    parsed = map(ip_network, session.networks)
    return [network for network in parsed if network.version == version]


def _uncovered(network: _Network, covered: Iterable[_Network]) -> list[_Network]:
    """Return what of a network is in none of the others."""
    parts = [network]
    for other in covered:
        parts = [left for part in parts for left in _without(part, other)]
    return parts


def _without(part: _Network, other: _Network) -> Iterable[_Network]:
    if not part.overlaps(other):
        return (part,)
    if part.prefixlen >= other.prefixlen:
        return ()
    return part.address_exclude(other)  # type: ignore[arg-type]  # both are of one version

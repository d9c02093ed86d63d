"""The gate in iptables and ip6tables: chains of its own in the table filter.

In the older form of iptables, since the newer is nftables; for kernels that have no more.
They close no opening by themselves: this agent does.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_network

from carnet.ipsec.block.iptables import WAIT
from target_agent.firewall import Guarded, Opening, Path, Seen, path
from target_agent.firewall.commands import said, tell

GATE = "CARNET-GATE"
_HOOKS = {"FORWARD": "CARNET-FORWARD", "INPUT": "CARNET-INPUT"}
"""The kernel's own chains, and ours to which they lead once and for ever."""

_LEADS = frozenset(f"-A {kernels} -j {ours}" for kernels, ours in _HOOKS.items())
_PROGRAMS = {4: "iptables-legacy", 6: "ip6tables-legacy"}

_WITH_IPSEC = "-m policy --dir in --pol ipsec -j RETURN"
_REPLIES = "-m conntrack --ctdir REPLY --ctstate ESTABLISHED,RELATED -j RETURN"

_DROP = f"-A {GATE} -j DROP"
_NETWORK = r"([\da-f.:]+/\d+)"
_OPENING = re.compile(rf"-A {GATE} -s {_NETWORK}(?: -d {_NETWORK})? -j RETURN")
"""As iptables-save lists what is open; to everywhere is without a destination."""

_NOT_YET_VERIFIED = "-m ah -j RETURN"
"""In IPv6 a packet filter looks past AH for the ports; see target_agent.firewall.nft."""


class Iptables:
    """iptables, through iptables-restore(8): a chain is replaced in one step.

    IPv4 and IPv6 come one after the other.
    """

    def guard(self, guarded: Guarded, openings: Iterable[Opening]) -> None:
        """Fill the chains anew, and lead there whatever comes from outside."""
        listed = tuple(openings)
        for version, program in _PROGRAMS.items():
            rules = [*_gate(version, listed), *(f":{ours} - [0:0]" for ours in _HOOKS.values())]
            rules += _ways_to_the_gate(version, guarded)
            _restore(program, [*rules, *_leads_besides(_saved(program))])

    def open_only(self, openings: Iterable[Opening]) -> None:
        """Fill the gate's chains anew."""
        listed = tuple(openings)
        for version, program in _PROGRAMS.items():
            _restore(program, _gate(version, listed))

    def seen(self) -> Seen:
        """List the gate's chains, and the rules that lead there; nothing if one is gone."""
        rules: list[str] = []
        openings: set[Path] = set()
        for program in _PROGRAMS.values():
            kept, opened = _told_apart(filter(_is_ours, _saved(program)))
            if not _LEADS.issubset(kept):
                return Seen("", frozenset())
            rules += kept
            openings |= opened
        return Seen("\n".join(rules), frozenset(openings))

    def changes(self) -> None:
        """Nothing tells of them."""


def _is_ours(line: str) -> bool:
    """Whether a rule is the gate's, or leads to it."""
    chains = tuple(f"-A {chain} " for chain in (GATE, *_HOOKS.values()))
    return line.startswith(chains) or line in _LEADS


def _told_apart(lines: Iterable[str]) -> tuple[list[str], set[Path]]:
    """Return the rules that are the same whoever is let through, and what is open.

    Behind the end of the gate nothing is: what is there is a change like any other.
    """
    kept: list[str] = []
    openings: set[Path] = set()
    for line in lines:
        opening = _OPENING.fullmatch(line)
        if opening and _DROP not in kept:
            source, network = opening.groups()
            openings.add(path(source, network or ("::/0" if ":" in source else "0.0.0.0/0")))
        else:
            kept.append(line)
    return kept, openings


def _saved(program: str) -> list[str]:
    return said([f"{program}-save", "-t", "filter"]).splitlines()


def _leads_besides(there: Collection[str]) -> Iterator[str]:
    """Yield the rules that lead to our chains, but for those that are there: once is enough."""
    for kernel, ours in _HOOKS.items():
        if f"-A {kernel} -j {ours}" not in there:
            yield f"-I {kernel} -j {ours}"


def _gate(version: int, openings: Iterable[Opening]) -> Iterator[str]:
    yield f":{GATE} - [0:0]"
    yield f"-A {GATE} {_WITH_IPSEC}"
    yield f"-A {GATE} {_REPLIES}"
    for opening in openings:
        if ip_network(opening.network).version == version:
            yield f"-A {GATE} -s {opening.source} -d {opening.network} -j RETURN"
    yield _DROP


def _ways_to_the_gate(version: int, guarded: Guarded) -> Iterator[str]:
    ports = ",".join(map(str, guarded.ports))
    if version == 6:  # noqa: PLR2004
        yield f"-A {_HOOKS['INPUT']} {_NOT_YET_VERIFIED}"
    for interface in guarded.outside:
        for network in guarded.networks:
            if ip_network(network).version == version:
                yield f"-A {_HOOKS['FORWARD']} -i {interface} -d {network} -j {GATE}"
        for protocol in ("tcp", "udp") if ports else ():
            match = f"-i {interface} -p {protocol} -m multiport --dports {ports}"
            yield f"-A {_HOOKS['INPUT']} {match} -j {GATE}"


def _restore(program: str, rules: Iterable[str]) -> None:
    lines = "\n".join(["*filter", *rules, "COMMIT", ""])
    tell([f"{program}-restore", "--noflush", *WAIT], lines)

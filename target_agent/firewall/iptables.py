"""The gate in iptables and ip6tables: chains of its own in the table filter.

In the older form of iptables, since the newer is nftables; for kernels that have no more.
They close no opening by themselves: this agent does.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from target_agent.firewall import Guarded, Opening
from target_agent.firewall.commands import said, tell

GATE = "CARNET-GATE"
_HOOKS = {"FORWARD": "CARNET-FORWARD", "INPUT": "CARNET-INPUT"}
"""The kernel's own chains, and ours to which they lead once and for ever."""

_PROGRAMS = {4: "iptables-legacy", 6: "ip6tables-legacy"}

_WITH_IPSEC = "-m policy --dir in --pol ipsec -j RETURN"
_REPLIES = "-m conntrack --ctdir REPLY --ctstate ESTABLISHED,RELATED -j RETURN"

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
            _restore(program, rules)
            for kernel, ours in _HOOKS.items():
                tell(["sh", "-c", _lead_once(program, f"{kernel} -j {ours}")], "")

    def open_only(self, openings: Iterable[Opening]) -> None:
        """Fill the gate's chains anew."""
        listed = tuple(openings)
        for version, program in _PROGRAMS.items():
            _restore(program, _gate(version, listed))

    def seen(self) -> str:
        """List the rules that lead to the gate's end, and that end."""
        of_each = [said([f"{program}-save", "-t", "filter"]) for program in _PROGRAMS.values()]
        found = [[line for line in text.splitlines() if _stays(line)] for text in of_each]
        return "\n".join(map(str, found)) if all(found) else ""

    def changes(self) -> None:
        """Nothing tells of them."""


def _stays(line: str) -> bool:
    """Whether a rule is the gate's, and the same whoever is let through."""
    ways = tuple(f"-A {chain} " for chain in _HOOKS.values())
    led = {f"-A {kernel} -j {ours}" for kernel, ours in _HOOKS.items()}
    return line.startswith(ways) or line in {*led, f"-A {GATE} -j DROP"}


def _lead_once(program: str, rule: str) -> str:
    return f"{program} -w -C {rule} 2>/dev/null || {program} -w -I {rule}"


def _gate(version: int, openings: Iterable[Opening]) -> Iterator[str]:
    yield f":{GATE} - [0:0]"
    yield f"-A {GATE} {_WITH_IPSEC}"
    yield f"-A {GATE} {_REPLIES}"
    for opening in openings:
        if ip_network(opening.network).version == version:
            yield f"-A {GATE} -s {opening.source} -d {opening.network} -j RETURN"
    yield f"-A {GATE} -j DROP"


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
    tell([f"{program}-restore", "--noflush", "--wait"], lines)

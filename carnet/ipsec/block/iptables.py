"""The block in iptables and ip6tables: a chain for each session in the table filter.

In the older form of iptables, since the newer is nftables; for kernels that have no more.
"""

import hashlib
import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

from carnet.errors import IPsecError
from carnet.ipsec.block.closed import DHCP_PORTS, IKE_PORTS, Closed, HeldBack, of_version
from carnet.ipsec.block.run import answers, tell

_PROGRAMS = {4: "iptables-legacy", 6: "ip6tables-legacy"}
_TABLES = {
    4: Path("/proc/thread-self/net/ip_tables_names"),
    6: Path("/proc/thread-self/net/ip6_tables_names"),
}
"""Which tables the kernel has for that IP version: without one there are no rules."""
WAIT = ("--wait", "10")
"""Seconds for which another iptables may hold the lock; without, it is waited for without end."""
_HOOKS = ("OUTPUT", "FORWARD")
_PREFIX = "CARNET-BLOCK-"

_LEADING = re.compile(
    rf'^-A (?P<hook>\w+) .*--comment "?(?P<name>[\w-]+)"? -j {_PREFIX}', re.MULTILINE
)

_RULE = re.compile(
    rf"^-A (?P<chain>{_PREFIX}\w+) -d (?P<where>\S+)"
    r"(?P<what> -p esp| -p tcp .*--dport (?P<port>\d+)|) -j (?:RETURN|DROP)$",
    re.MULTILINE,
)
"""What a session's chain has of a network that is closed, of a Target, and of a Host."""

TUNNELLED = {False: "-m policy --dir out --pol ipsec", True: "-o ipsec+"}
"""See carnet.ipsec.block.nft."""

_ND_TYPES = (133, 135, 136)
"""Neighbor Discovery's router solicitation, neighbor solicitation and advertisement."""


class Iptables:
    """iptables, through iptables-restore(8): a session's chain is replaced in one step."""

    name = "iptables"

    def works(self) -> bool:
        """Whether the kernel has a table filter for either IP version's program."""
        return answers([_PROGRAMS[4], *WAIT, "-S", _HOOKS[0]]) is not None

    def close(self, closed: Closed) -> None:
        """Fill the session's chain anew, and lead there whatever leaves. Raises IPsecError.

        Nothing of an older block stays where this one holds nothing back of an IP version.
        """
        for version, program in _PROGRAMS.items():
            if of_version(version, closed.networks):
                led = _hooks_to(closed.name, _rules_of(version))
                leads = (f"-I {hook} {_lead(closed.name)}" for hook in _HOOKS if hook not in led)
                tell(_restoring(program), _lines(*_chain(version, closed), *leads))
            elif may_have_rules(version):
                _take_out(version, closed.name)

    def lift(self, name: str) -> None:
        """Take the session's chains out, unless there are none. Raises IPsecError."""
        for version in _PROGRAMS:
            _take_out(version, name)

    def names(self) -> frozenset[str]:
        """Return the tunnels that have a chain. Raises IPsecError."""
        listed = map(_rules_of, _PROGRAMS)
        return frozenset(found["name"] for text in listed for found in _LEADING.finditer(text))

    def held_back(self) -> dict[str, HeldBack]:
        """Return what the sessions' chains hold back. Raises IPsecError."""
        text = "\n".join(map(_rules_of, _PROGRAMS))
        return {
            name: _held_back(_chain_name(name), text)
            for name in {found["name"] for found in _LEADING.finditer(text)}
        }


def _held_back(chain: str, rules: str) -> HeldBack:
    of_it = [found for found in _RULE.finditer(rules) if found["chain"] == chain]
    alone = [(str(ip_network(found["where"])[0]), found) for found in of_it if found["what"]]
    return HeldBack(
        networks=frozenset(found["where"] for found in of_it if not found["what"]),
        targets=frozenset(address for address, found in alone if not found["port"]),
        hosts=frozenset((address, int(found["port"])) for address, found in alone if found["port"]),
    )


def _take_out(version: int, name: str) -> None:
    """Take the session's chain of one IP version out, unless there is none. Raises IPsecError."""
    chain, rules = _chain_name(name), _rules_of(version)
    if f"-N {chain}\n" in rules:
        leads = (f"-D {hook} {_lead(name)}" for hook in _hooks_to(name, rules))
        lines = _lines(*leads, f"-F {chain}", f"-X {chain}")
        if answers(_restoring(_PROGRAMS[version]), lines) is None:
            _see_gone(chain, _rules_of(version))


def _rules_of(version: int) -> str:
    """Return what is listed of the table filter; nothing where the kernel has none.

    Raises IPsecError where that is not told.
    """
    program = _PROGRAMS[version]
    listed = answers([program, *WAIT, "-S"])
    if listed is None and may_have_rules(version):
        raise IPsecError(
            f"{program} does not tell what it holds back; see what `{program} -S` says, and try"
            " again."
        )
    return listed or ""


def may_have_rules(version: int) -> bool:
    """Whether the kernel has a table filter, or does not say so."""
    try:
        return "filter" in _TABLES[version].read_text().split()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _hooks_to(name: str, rules: str) -> list[str]:
    """Return the kernel's own chains that lead to the session's, as often as they do."""
    return [found["hook"] for found in _LEADING.finditer(rules) if found["name"] == name]


def _see_gone(chain: str, rules: str) -> None:
    """Raise IPsecError if a chain is still there."""
    if f"-N {chain}\n" in rules:
        raise IPsecError(
            "iptables keeps the block against packets in clear; run this as root, or"
            f" take the chain {chain} out by hand."
        )


def _restoring(program: str) -> list[str]:
    return [f"{program}-restore", "--noflush", *WAIT]


def _lines(*rules: str) -> str:
    """Return what changes the table filter in one step."""
    return "\n".join(["*filter", *rules, "COMMIT", ""])


def _chain_name(name: str) -> str:
    """Return a name of the 28 characters that there may be."""
    return _PREFIX + hashlib.sha256(name.encode()).hexdigest()[:15]


def _lead(name: str) -> str:
    return f"-m comment --comment {name} -j {_chain_name(name)}"


def _chain(version: int, closed: Closed) -> Iterator[str]:
    chain = _chain_name(closed.name)
    yield f":{chain} - [0:0]"
    for match in _let_through(version, closed):
        yield f"-A {chain} {match} -j RETURN"
    for network in of_version(version, closed.networks):
        yield f"-A {chain} -d {network} -j DROP"


def _let_through(version: int, closed: Closed) -> Iterator[str]:
    yield TUNNELLED[closed.userspace]
    yield "-o lo"
    for target in of_version(version, closed.targets):
        yield f"-d {target} -p esp"
        # In IPv6 the protocol is what comes after AH.
        yield f"-d {target} -m ah" if version == 6 else f"-d {target} -p ah"  # noqa: PLR2004
        yield f"-d {target} -p udp -m multiport --dports {','.join(map(str, IKE_PORTS))}"
    for host, port in closed.hosts:
        if of_version(version, [host]):
            yield f"-d {host} -p tcp --dport {port}"
    yield f"-p udp -m multiport --dports {','.join(map(str, DHCP_PORTS))}"
    if version == 6:  # noqa: PLR2004
        yield from (f"-p icmpv6 --icmpv6-type {kind}" for kind in _ND_TYPES)

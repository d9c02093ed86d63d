"""The block for the pools of virtual addresses, in nftables or, where they know no IP, iptables.

What is for an address of these leaves with IPsec, or not at all: the machine's own packets and
those that it forwards. One rule for each IP version, however many tunnels there are.
"""

from collections.abc import Sequence
from socket import socket
from typing import Protocol

from carnet.ipsec.block.closed import of_version
from carnet.ipsec.block.iptables import TUNNELLED as TUNNELLED_IPTABLES
from carnet.ipsec.block.iptables import WAIT, may_have_rules
from carnet.ipsec.block.nft import TUNNELLED
from carnet.ipsec.block.run import answers, tell
from target_agent.firewall.nft import changes

TABLE = "carnet_pool"
CHAIN = "CARNET-POOL"

_RULES = """\
table inet {table} {{
    set pool4 {{ type ipv4_addr; flags interval; auto-merge; {pool4} }}
    set pool6 {{ type ipv6_addr; flags interval; auto-merge; {pool6} }}
    chain closed {{
        {kernels}
        {daemons}
        oif "lo" accept
        counter drop
    }}
    chain leaving {{
        type filter hook postrouting priority srcnat + 50; policy accept;
        ip daddr @pool4 jump closed
        ip6 daddr @pool6 jump closed
    }}
}}
"""
_WITHOUT = f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
"""Added first, so that there is one to delete; with what follows it is one transaction."""

_PROGRAMS = {4: "iptables-legacy", 6: "ip6tables-legacy"}
_HOOKS = ("OUTPUT", "FORWARD")


class PoolFilter(Protocol):
    """One packet filter of this machine. What it keeps outlives whoever told it."""

    def works(self, networks: Sequence[str]) -> bool:
        """Whether it takes the rules here; it is only asked."""

    def close(self, networks: Sequence[str]) -> None:
        """Close these, in the place of any before. Raises IPsecError if it refuses."""

    def lift(self) -> None:
        """Take the block out; none is no error. Raises IPsecError if it stays."""

    def seen(self) -> str:
        """Return what is there of it, the same while it stands; nothing if it is not told."""

    def changes(self) -> socket | None:
        """Return what can be read whenever any rules change; None where nothing tells.

        The caller closes it. Raises OSError.
        """


class NftPool:
    """nftables, through nft(8): behind source NAT, so that it judges what really leaves."""

    def works(self, networks: Sequence[str]) -> bool:
        """Whether the kernel would take the rules; it is only asked."""
        return answers(["nft", "--check", "-f", "-"], rules(networks)) is not None

    def close(self, networks: Sequence[str]) -> None:
        """Make the table anew, in one step. Raises IPsecError."""
        tell(["nft", "-f", "-"], _WITHOUT + rules(networks))

    def lift(self) -> None:
        """Delete the table, unless there is none. Raises IPsecError."""
        if self.seen():
            tell(["nft", "-f", "-"], _WITHOUT)

    def seen(self) -> str:
        """List the table, without what it has counted."""
        return answers(["nft", "--stateless", "list", "table", "inet", TABLE]) or ""

    def changes(self) -> socket:
        """Hear of every change of nftables in this network namespace."""
        return changes()


class IptablesPool:
    """iptables and ip6tables in their older form: a chain for each IP version."""

    def works(self, networks: Sequence[str]) -> bool:
        """Whether the kernel has a table filter for each IP version that is meant."""
        return all(answers([each, *WAIT, "-S", _HOOKS[0]]) is not None for each in _of(networks))

    def close(self, networks: Sequence[str]) -> None:
        """Fill the chain anew, and lead there whatever leaves. Raises IPsecError."""
        for version, program in _PROGRAMS.items():
            closed = of_version(version, networks)
            if closed:
                led = _listed(version)
                leads = [f"-I {hook} -j {CHAIN}" for hook in _HOOKS if _lead(hook) not in led]
                _restore(program, [*chain(closed), *leads])

    def lift(self) -> None:
        """Take the chain out, unless there is none. Raises IPsecError."""
        for version, program in _PROGRAMS.items():
            listed = _listed(version)
            if f"-N {CHAIN}" in listed:
                leads = [f"-D {hook} -j {CHAIN}" for hook in _HOOKS if _lead(hook) in listed]
                _restore(program, [*leads, f"-F {CHAIN}", f"-X {CHAIN}"])

    def seen(self) -> str:
        """List the chain of either IP version, and what leads there."""
        lines = [line for version in _PROGRAMS for line in _listed(version)]
        return "\n".join(line for line in lines if CHAIN in line.split())

    def changes(self) -> None:
        """Nothing tells of them."""


FILTERS: tuple[PoolFilter, ...] = (NftPool(), IptablesPool())
"""In the order in which they are tried."""


def rules(networks: Sequence[str]) -> str:
    """Return the table in nftables that closes these networks."""
    return _RULES.format(
        table=TABLE,
        pool4=_elements(of_version(4, networks)),
        pool6=_elements(of_version(6, networks)),
        # The one for the kernel's ESP and AH, the other for a daemon's own.
        kernels=TUNNELLED[False],
        daemons=TUNNELLED[True],
    )


def chain(networks: Sequence[str]) -> list[str]:
    """Return the chain in iptables that closes these networks, of one IP version."""
    lets = [*TUNNELLED_IPTABLES.values(), "-o lo"]
    return [
        f":{CHAIN} - [0:0]",
        *(f"-A {CHAIN} {match} -j RETURN" for match in lets),
        *(f"-A {CHAIN} -d {network} -j DROP" for network in networks),
    ]


def _elements(networks: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(networks)} }};" if networks else ""


def _of(networks: Sequence[str]) -> list[str]:
    return [each for version, each in _PROGRAMS.items() if of_version(version, networks)]


def _lead(hook: str) -> str:
    return f"-A {hook} -j {CHAIN}"


def _listed(version: int) -> list[str]:
    """Return the rules of a table filter that is there: to ask would make one."""
    if not may_have_rules(version):
        return []
    return (answers([_PROGRAMS[version], *WAIT, "-S"]) or "").splitlines()


def _restore(program: str, lines: Sequence[str]) -> None:
    text = "\n".join(["*filter", *lines, "COMMIT", ""])
    tell([f"{program}-restore", "--noflush", *WAIT], text)

"""The gate in nftables: one table of its own, its openings a set each for IPv4 and IPv6.

The kernel closes each opening itself when its time is over.

In IPv6 a packet filter looks past AH for the ports, before the kernel has verified it. What
is for this machine comes again without AH, and with IPsec, or not at all: so it is let by the
first time. What is to be forwarded is verified by nobody here, and is not.
"""

import math
import re
import time
from collections.abc import Iterable
from ipaddress import ip_network
from socket import AF_NETLINK, SOCK_RAW, socket

from target_agent.firewall import Guarded, Opening, Seen, path
from target_agent.firewall.commands import said, tell

TABLE = "carnet_gate"

_NETLINK_NETFILTER, _NFNLGRP_NFTABLES = 12, 7
"""Of linux/netlink.h and linux/netfilter/nfnetlink.h."""

_RULES = """\
table inet {table} {{
    set outside {{ type ifname; {outside} }}
    set guarded4 {{ type ipv4_addr; flags interval; auto-merge; {guarded4} }}
    set guarded6 {{ type ipv6_addr; flags interval; auto-merge; {guarded6} }}
    set ports {{ type inet_service; {ports} }}
    set open4 {{ type ipv4_addr . ipv4_addr; flags interval, timeout; {open4} }}
    set open6 {{ type ipv6_addr . ipv6_addr; flags interval, timeout; {open6} }}
    chain gate {{
        meta ipsec exists return
        ct direction reply ct state established,related return
        ip saddr . ip daddr @open4 return
        ip6 saddr . ip6 daddr @open6 return
        drop
    }}
    chain forward {{
        type filter hook forward priority filter - 5; policy accept;
        iifname @outside ip daddr @guarded4 jump gate
        iifname @outside ip6 daddr @guarded6 jump gate
    }}
    chain input {{
        type filter hook input priority filter - 5; policy accept;
        ip6 nexthdr ah return
        iifname @outside meta l4proto {{ tcp, udp }} th dport @ports jump gate
    }}
}}
"""

_OPENING = re.compile(
    r"(?:\s+elements = \{)?\s+([\da-f.:/]+) \. ([\da-f.:/]+) timeout \w+(?: expires \w+)?(?:,| \})"
)
"""As nft lists what is open. What is there in another form is a change."""


class Nft:
    """nftables, through nft(8); each call is one transaction."""

    def guard(self, guarded: Guarded, openings: Iterable[Opening]) -> None:
        """Make the table anew."""
        by_version = _by_version(openings)
        rules = _RULES.format(
            table=TABLE,
            outside=_elements(f'"{name}"' for name in guarded.outside),
            guarded4=_elements(_of_version(4, guarded.networks)),
            guarded6=_elements(_of_version(6, guarded.networks)),
            ports=_elements(map(str, guarded.ports)),
            open4=_elements(by_version[4]),
            open6=_elements(by_version[6]),
        )
        # Added first, so that there is one to delete; all of it is one transaction.
        tell(["nft", "-f", "-"], f"add table inet {TABLE}\ndelete table inet {TABLE}\n{rules}")

    def open_only(self, openings: Iterable[Opening]) -> None:
        """Fill the two sets anew."""
        lines = []
        for version, elements in _by_version(openings).items():
            lines.append(f"flush set inet {TABLE} open{version}")
            if elements:
                listed = ", ".join(elements)
                lines.append(f"add element inet {TABLE} open{version} {{ {listed} }}")
        tell(["nft", "-f", "-"], "\n".join(lines) + "\n")

    def seen(self) -> Seen:
        """List the table; what is open is told from all else by its time."""
        listed = said(["nft", "list", "table", "inet", TABLE])
        openings = frozenset(path(*found) for found in _OPENING.findall(listed))
        return Seen(_OPENING.sub("", listed), openings)

    def changes(self) -> socket:
        """Hear of every change of nftables in this network namespace, as `nft monitor` does."""
        return changes()


def changes() -> socket:
    """Hear of every change of nftables in this network namespace. Raises OSError."""
    heard = socket(AF_NETLINK, SOCK_RAW, _NETLINK_NETFILTER)
    try:
        heard.bind((0, 1 << _NFNLGRP_NFTABLES - 1))
    except OSError:
        heard.close()
        raise
    return heard


def _by_version(openings: Iterable[Opening]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {4: [], 6: []}
    for opening in openings:
        version = ip_network(opening.network).version
        left = math.ceil(opening.until - time.time())
        if left > 0:
            found[version].append(f"{opening.source} . {opening.network} timeout {left}s")
    return found


def _of_version(version: int, networks: Iterable[str]) -> list[str]:
    return [network for network in networks if ip_network(network).version == version]


def _elements(values: Iterable[str]) -> str:
    listed = ", ".join(values)
    return f"elements = {{ {listed} }};" if listed else ""

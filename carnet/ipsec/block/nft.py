"""The block in nftables: one table for each session, replaced and deleted in one step.

It sits after everything else that decides where a packet goes, source NAT included, so
that it judges what really leaves: a machine's own packets and those that it forwards.
In IPv6 a packet filter takes for the protocol what comes after AH, so AH is looked for apart.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Any

from carnet.errors import IPsecError
from carnet.ipsec.block.closed import DHCP_PORTS, IKE_PORTS, Closed, HeldBack, of_version
from carnet.ipsec.block.run import answers, tell
from carnet.ipsec.spec import NAME_PREFIX

_PREFIX = "carnet_block_"

TUNNELLED = {
    False: "rt ipsec exists accept",
    True: 'meta oifkind "tun" oifname "ipsec*" accept',
}
"""How a packet is known to go into the tunnel, by whether ESP is the daemon's own.

The kernel's ESP and AH come after this hook: what they are to protect has its IPsec policy
by now. Userspace ESP has its packets by way of a tun device.
"""

_RULES = """\
table inet {table} {{
    set closed4 {{ type ipv4_addr; flags interval; auto-merge; {closed4} }}
    set closed6 {{ type ipv6_addr; flags interval; auto-merge; {closed6} }}
    set target4 {{ type ipv4_addr; {target4} }}
    set target6 {{ type ipv6_addr; {target6} }}
    set hosts4 {{ type ipv4_addr . inet_service; {hosts4} }}
    set hosts6 {{ type ipv6_addr . inet_service; {hosts6} }}
    chain target {{
        meta l4proto {{ esp, ah }} accept
        ip6 nexthdr ah accept
        udp dport {{ {ike} }} accept
    }}
    chain closed {{
        {tunnelled}
        oif "lo" accept
        ip daddr @target4 jump target
        ip6 daddr @target6 jump target
        ip daddr . tcp dport @hosts4 accept
        ip6 daddr . tcp dport @hosts6 accept
        udp dport {{ {dhcp} }} accept
        icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert }} accept
        counter drop
    }}
    chain leaving {{
        type filter hook postrouting priority srcnat + 50; policy accept;
        ip daddr @closed4 jump closed
        ip6 daddr @closed6 jump closed
    }}
}}
"""

_PROBE = Closed(name=f"{NAME_PREFIX}probe", networks=(), targets=(), hosts=(), userspace=False)


class Nft:
    """nftables, through nft(8)."""

    name = "nftables"

    def works(self) -> bool:
        """Whether the kernel would take a block's rules; it is only asked."""
        return answers(["nft", "--check", "-f", "-"], _rules(_PROBE)) is not None

    def close(self, closed: Closed) -> None:
        """Make the session's table, in place of an older one. Raises IPsecError.

        Most sessions have none yet. To delete one has nft wait for the kernel, for three times
        as long as all the rest takes.
        """
        rules = _rules(closed)
        # Two commands: of `create` with the rules in it nft 1.0.6 makes an empty table.
        if answers(["nft", "-f", "-"], f"create table inet {_table(closed.name)}\n{rules}") is None:
            tell(["nft", "-f", "-"], f"{_without(closed.name)}{rules}")

    def lift(self, name: str) -> None:
        """Delete the session's table, unless there is none. Raises IPsecError."""
        listed = _listed()
        if listed is None or name in listed:
            tell(["nft", "-f", "-"], _without(name))

    def names(self) -> frozenset[str]:
        """Return the tunnels that have a table. Raises IPsecError."""
        listed = _listed()
        if listed is None:
            raise _untold("tables")
        return listed

    def held_back(self) -> dict[str, HeldBack]:
        """Return what the sessions' tables hold back. Raises IPsecError."""
        text = answers(["nft", "-j", "list", "sets", "inet"])
        if text is None:
            raise _untold("sets")
        return _held_back(text)


def _untold(what: str) -> IPsecError:
    return IPsecError(
        f"nft does not tell what it holds back; see what `nft list {what}` says, and try again."
    )


def _held_back(text: str) -> dict[str, HeldBack]:
    """Read the sets of all tables, of both IP versions."""
    elements: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for each in json.loads(text or "{}").get("nftables", ()):
        found = each.get("set", {})
        if found.get("table", "").startswith(_PREFIX):
            elements[_tunnel(found["table"])][found["name"][:-1]] += found.get("elem", ())
    return {
        name: HeldBack(
            networks=frozenset(net for each in sets["closed"] for net in _networks(each)),
            targets=frozenset(sets["target"]),
            hosts=frozenset((host, port) for host, port in (e["concat"] for e in sets["hosts"])),
        )
        for name, sets in elements.items()
    }


def _networks(element: Any) -> Iterator[str]:
    """Return what one element of a set with intervals is: an address, a network, or several."""
    if isinstance(element, str):
        yield str(ip_network(element))
    elif "prefix" in element:
        yield f"{element['prefix']['addr']}/{element['prefix']['len']}"
    else:
        first, last = map(ip_address, element["range"])
        yield from map(str, summarize_address_range(first, last))


def _listed() -> frozenset[str] | None:
    """Return the tunnels that have a table; None if nft does not tell."""
    text = answers(["nft", "-j", "list", "tables", "inet"])
    if text is None:
        return None
    found = json.loads(text or "{}").get("nftables", ())
    tables = (each.get("table", {}).get("name", "") for each in found)
    return frozenset(_tunnel(table) for table in tables if table.startswith(_PREFIX))


def _without(name: str) -> str:
    """Delete a session's table; it is added first, so that there is one: somebody may be faster."""
    table = _table(name)
    return f"add table inet {table}\ndelete table inet {table}\n"


def _table(name: str) -> str:
    return _PREFIX + name.removeprefix(NAME_PREFIX)


def _tunnel(table: str) -> str:
    return NAME_PREFIX + table.removeprefix(_PREFIX)


def _rules(closed: Closed) -> str:
    sets = {}
    for version in (4, 6):
        hosts = [f"{host} . {port}" for host, port in closed.hosts if of_version(version, [host])]
        sets[f"closed{version}"] = _elements(of_version(version, closed.networks))
        sets[f"target{version}"] = _elements(of_version(version, closed.targets))
        sets[f"hosts{version}"] = _elements(hosts)
    return _RULES.format(
        table=_table(closed.name),
        tunnelled=TUNNELLED[closed.userspace],
        ike=", ".join(map(str, IKE_PORTS)),
        dhcp=", ".join(map(str, DHCP_PORTS)),
        **sets,
    )


def _elements(values: Iterable[str]) -> str:
    listed = ", ".join(dict.fromkeys(values))
    return f"elements = {{ {listed} }};" if listed else ""

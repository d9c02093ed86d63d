"""What an address means to this machine already, before it becomes its own in a tunnel.

An address that is set here is this machine's for all its users: what they send there comes
back to whoever listens, whether the tunnel stands or not. So none may be set by which this
machine reaches something else.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec

from carnet.errors import IPsecError
from carnet.ipsec.inner_address import is_into_tunnel
from carnet.ipsec.inside import resolv_conf
from carnet.ipsec.inside.resolv_conf import machine_s_servers, servers_in
from carnet.ipsec.inside.resolved import machine_s_among
from carnet.ipsec.iproute import ip

RESOLVED_ASKS = Path("/run/systemd/resolve/resolv.conf")
"""It names the servers that systemd-resolved asks."""
_UNICAST = frozenset({"unicast", "1"})
"""Of all types the one that leads anywhere but to this machine itself (rtnetlink(7))."""
_HALF = 1
"""The prefix length of half of all addresses: two such routes are a default route."""

_Listed = dict[str, Any]
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Surroundings(msgspec.Struct, frozen=True):
    """Where this machine's packets go without our tunnels, and what it cannot do without."""

    on_link: tuple[Network, ...] = ()
    """Networks that it is in."""
    beyond: tuple[Network, ...] = ()
    """Networks that it has a route to, besides its default route."""
    gateways: frozenset[Address] = frozenset()
    name_servers: frozenset[Address] = frozenset()

    def meaning(self, address: Address) -> str | None:
        """Return what it is here, to be said after "is"; None if it is nothing."""
        if _is_special(address):
            return "no address of one machine"
        if address in self.gateways:
            return "the gateway of this machine"
        if address in self.name_servers:
            return "a name server of this machine"
        inside = next((each for each in self.on_link if address in each), None)
        return f"in {inside}, a network that this machine is in" if inside else None

    def leads_to(self, address: Address) -> Network | None:
        """Return the network by which it is reached; None where the default route leads there."""
        return next((each for each in (*self.on_link, *self.beyond) if address in each), None)


def look_around(version: int) -> Surroundings:
    """Return what there is of one IP version, but for our own tunnels. Raises IPsecError.

    By whichever routing table: a rule may lead to any of them, as those of other VPNs do.
    Elsewhere than on Linux that is not known here, and nothing is returned.
    """
    if sys.platform != "linux":
        return Surroundings()
    listed = ip("-json", "-N", f"-{version}", "route", "show", "table", "all")
    try:
        return _sort(list(filter(_leads_elsewhere, json.loads(listed.stdout or "[]"))), version)
    except (ValueError, AttributeError) as error:
        raise IPsecError("The program ip does not list the machine's routes.") from error


def _leads_elsewhere(route: _Listed) -> bool:
    """Whether packets leave this machine by it, and not for a tunnel of ours."""
    unicast = route.get("type", "unicast") in _UNICAST
    return "dst" in route and unicast and not is_into_tunnel(route)


def _sort(routes: list[_Listed], version: int) -> Surroundings:
    on_link: list[Network] = []
    beyond: list[Network] = []
    gateways: set[Address] = set()
    for route in routes:
        ways = [route, *route.get("nexthops", ())]
        through = {str(way["gateway"]) for way in ways if "gateway" in way}
        through |= {str(way["via"]["host"]) for way in ways if isinstance(way.get("via"), dict)}
        gateways |= {ip_address(each) for each in through}
        network = _network(str(route["dst"]), version)
        if network.prefixlen > _HALF:
            (beyond if through else on_link).append(network)
    return Surroundings(
        on_link=tuple(on_link),
        beyond=tuple(beyond),
        gateways=frozenset(gateways),
        name_servers=frozenset(_name_servers()),
    )


def _network(text: str, version: int) -> Network:
    everywhere = "0.0.0.0/0" if version == 4 else "::/0"  # noqa: PLR2004
    return ip_network(everywhere if text == "default" else text)


def _name_servers() -> Iterator[Address]:
    named = machine_s_servers()
    # Where programs read what systemd-resolved asks, those of a tunnel are among it.
    resolved_s = resolv_conf.RESOLV_CONF.resolve() == RESOLVED_ASKS
    yield from machine_s_among(named) if resolved_s else named
    with suppress(OSError):
        yield from machine_s_among(servers_in(RESOLVED_ASKS.read_text(errors="replace")))


def _is_special(address: Address) -> bool:
    return (
        address.is_loopback
        or address.is_multicast
        or address.is_unspecified
        or address.is_link_local
    )

"""How long packets may be inside a tunnel: the MTU of Tunneling Info, on the Client's routes.

A route into a tunnel has the virtual address as its source, whichever daemon has set it.
Of what is longer and must not be fragmented the program is told (RFC 1191), and TCP asks its peer
for segments that fit (RFC 9293 section 3.7.1). A datagram of IPv4 that may be fragmented is
encrypted whole all the same, and what that makes of it is fragmented: the kernel's order.
"""

import json
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import msgspec

from carnet.errors import IPsecError
from carnet.ipsec.inner_address import OURS
from carnet.ipsec.iproute import ip

LEAST = {4: 576, 6: 1280}
"""What every host takes in, by IP version (RFC 791, RFC 8200 section 5)."""

_Network = IPv4Network | IPv6Network

_UNICAST = ("unicast", "1")
_MAIN = "254"
_IPV4 = 4
_KERNEL = "2"
"""The protocol of what leads to an interface's own network (RTPROT_KERNEL)."""


class _Route(msgspec.Struct, frozen=True):
    version: int
    facts: dict[str, Any]

    @property
    def mtu(self) -> int | None:
        """The MTU that it has of its own."""
        found = (metric.get("mtu") for metric in self.facts.get("metrics", ()))
        return next((int(each) for each in found if each), None)

    def line(self, mtu: int) -> str:
        """Return what has `ip` set an MTU, and leave all else as it is."""
        words = [f"-{self.version} route change {self.facts['dst']}"]
        words += [f"{word} {self.facts[key]}" for word, key in _WORDS if key in self.facts]
        # The scope that is not listed, as charon's routes have it: `ip` would take that of a link
        # for one without a gateway, and charon could not take the route away any more.
        if self.version == _IPV4 and "scope" not in self.facts:
            words.append("scope global")
        words += [str(flag) for flag in self.facts.get("flags", ()) if flag == "onlink"]
        return " ".join([*words, f"table {self.facts.get('table', _MAIN)} mtu {mtu}"])


_WORDS = (
    *(("via", "gateway"), ("dev", "dev"), ("proto", "protocol"), ("scope", "scope")),
    *(("src", "prefsrc"), ("metric", "metric"), ("pref", "pref")),
)


def fit(address: str, mtu: int, peers: Collection[str], networks: Collection[str]) -> None:
    """Have packets of `mtu` bytes at most go into the tunnel of this virtual address.

    It leads to these networks, or to `peers` alone where there are none. What leads elsewhere is
    another tunnel's, to which a Target has assigned the same address, or somebody else's.

    What carries the tunnel is longer than what is inside: a route that keeps the way to one of
    `peers`, at which Target is, is left as it is (carnet.ipsec.routes).

    No more than the interface takes, and no less than the IP version asks for. Routes that
    have it are left alone. Raises IPsecError if the kernel refuses.
    """
    wanted = max(mtu, LEAST[ip_address(address).version])
    led = {ip_network(each) for each in networks or peers}
    for route in _routes_from(address, {ip_network(each) for each in peers}, led):
        if route.mtu is None or route.mtu > wanted:
            _tell(route.line(min(wanted, _mtu_of(route.facts["dev"]))))


def _routes_from(
    address: str, peers: Collection[_Network], led: Collection[_Network]
) -> list[_Route]:
    version = ip_address(address).version
    listed = ip("-json", "-N", f"-{version}", "route", "show", "table", "all")
    found = [
        each
        for each in json.loads(listed.stdout or "[]")
        if each.get("prefsrc") == address
        and each.get("type", "unicast") in _UNICAST
        and each.get("protocol") != _KERNEL
        and "dev" in each
        and any(_is_within(_network(each), network) for network in led)
    ]
    return [_Route(version, each) for each in found if not _keeps_a_way(each, found, peers)]


def _keeps_a_way(
    route: dict[str, Any], found: list[dict[str, Any]], peers: Collection[_Network]
) -> bool:
    """Whether it leads to a peer that is in a network of the tunnel's.

    The peer alone may be that network: then the one route is the peer's way, too.
    """
    own, networks = _network(route), map(_network, found)
    within = any(own[0] in each for each in networks if each != own)
    return route.get("protocol") in OURS and own in peers and within


def _network(route: dict[str, Any]) -> _Network:
    default = "::/0" if ":" in route["prefsrc"] else "0.0.0.0/0"
    return ip_network(route["dst"].replace("default", default))


def _is_within(network: _Network, other: _Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _mtu_of(interface: str) -> int:
    listed = ip("-json", "link", "show", "dev", interface)
    try:
        return int(json.loads(listed.stdout)[0]["mtu"])
    except (ValueError, LookupError) as error:
        raise IPsecError(
            f"The interface {interface} has gone; check the network, and connect again."
        ) from error


def _tell(line: str) -> None:
    # A tunnel that moves or ends meanwhile takes the route away; the next look finds the new one.
    done = ip(*line.split())
    if done.returncode and "No such" not in done.stderr:
        why = " ".join(done.stderr.split()) or "no reason"
        raise IPsecError(f"The kernel does not take the tunnel's MTU ({why}); run this as root.")

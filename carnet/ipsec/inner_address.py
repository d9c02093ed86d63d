"""The Client's address inside a tunnel, and the routes through it, where they are ours to set.

Libreswan's own script would do it with a score of programs, and in IKEv1 nobody gives the
Client her address. Through iproute2; there is no secret in it. The routes are on-link,
without a gateway: without the tunnel's policies, they lead nowhere.
"""

import json
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from carnet.errors import IPsecError
from carnet.ipsec import routes
from carnet.ipsec.bundle import ROUTE_PROTOCOL
from carnet.ipsec.driver import Lead
from carnet.ipsec.iproute import Way, force, ip

PROTOCOL = 204
"""By which routes of ours are known (/etc/iproute2/rt_protos)."""
CHARON_TABLE = "220"
"""Where charon has its routes, unless `charon.routing_table` in strongswan.conf says otherwise."""

OURS = frozenset(map(str, (PROTOCOL, *ROUTE_PROTOCOL.values())))
"""Which protocols our own routes into tunnels have, as `ip -N` lists them."""

_Route = dict[str, Any]
"""As `ip` lists it."""


def install(
    virtual_address: str, networks: Iterable[str], interface: str, way: Way | None = None
) -> None:
    """Set a Client's address at an interface, and her routes to the networks behind Target.

    `way` is hers to Target itself, which it keeps where it is in one of the networks.

    Raises IPsecError if the kernel refuses.
    """
    address = ip_address(virtual_address)
    nodad = " nodad" if address.version == 6 else ""  # noqa: PLR2004
    lines = [f"address replace {address}/{address.max_prefixlen} dev {interface}{nodad}"]
    lines += _missing(address, networks, interface, way)
    done = ip("-batch", "-", said="".join(f"{line}\n" for line in lines))
    if done.returncode:
        why = " ".join(done.stderr.split()) or "no reason"
        raise IPsecError(
            f"The kernel does not take the address inside the tunnel ({why}); connect again."
        )


def lead_again(
    virtual_address: str, networks: Iterable[str], interface: str, way: Way | None = None
) -> None:
    """Do the same where any of the routes is gone; else nothing is told the kernel."""
    led = tuple(networks)
    if _missing(ip_address(virtual_address), led, interface, way):
        install(virtual_address, led, interface, way)


def _missing(
    address: IPv4Address | IPv6Address, networks: Iterable[str], interface: str, way: Way | None
) -> list[str]:
    """Return the lines that set those of the routes which are not there."""
    lines: list[str] = []
    for network in dict.fromkeys(networks):
        lines += routes.into_tunnel(network, interface, str(address), PROTOCOL, way)
    # Of several networks that Target is in, each would have its way kept.
    return list(dict.fromkeys(lines))


def remove(address: str, others: Iterable[Lead] = (), at: Iterable[str] = ()) -> bool:
    """Take away a virtual address and its routes; none is no error. Return whether it is gone.

    It is taken from where those lead, and from the interfaces `at` which it was set besides: one
    that somebody else has set stays. While one of `others` has it, and a route of ours from it
    leads where that does, it stays, with those routes. A route of another address to the same
    network stays.
    """
    version = ip_address(address).version
    found = [route for route in _installed(f"-{version}") if route["prefsrc"] == address]
    having = [each for each in others if address in each.inner] if found else ()
    led = {ip_network(to) for each in having for to in each.networks | each.targets}
    gone = [route for route in found if _destination(route, version) not in led]
    if len(gone) < len(found):
        force(_deletions(gone))
        return False
    _remove(found)
    force([_taken_from(interface, address) for interface in dict.fromkeys(at)])
    return True


def interfaces_of(address: str) -> list[str]:
    """Return which have an address, whoever has set it."""
    listed = ip("-json", "address", "show", "to", address)
    return [each["ifname"] for each in json.loads(listed.stdout or "[]") if "ifname" in each]


def led_from(addresses: Iterable[str]) -> dict[str, list[str]]:
    """Return which of these addresses have a route into a tunnel, and by which interfaces.

    Whoever has set them by hand, or for another VPN, makes no such routes: those of ours, and
    those that charon makes for the tunnels that stand.
    """
    wanted = set(addresses)
    found: dict[str, list[str]] = {}
    for version in {ip_address(each).version for each in wanted}:
        listed = ip("-json", "-N", f"-{version}", "route", "show", "table", "all")
        for route in json.loads(listed.stdout or "[]"):
            if is_into_tunnel(route) and route.get("prefsrc") in wanted and "dev" in route:
                found.setdefault(route["prefsrc"], []).append(route["dev"])
    return found


def is_into_tunnel(route: _Route) -> bool:
    """Whether a route, as `ip -N` lists it, is one of ours, or of charon's for a tunnel."""
    return route.get("protocol") in OURS or route.get("table") == CHARON_TABLE


def sweep(keep: Callable[[], Collection[str]], interface: str | None = None) -> None:
    """Take away the virtual addresses of ours, with their routes, but those of keep().

    That is asked once they are listed: what is set meanwhile stays. So does what is not at
    `interface`, if one is named.
    """
    installed = [each for each in _installed() if interface in (None, each.get("dev"))]
    kept = keep() if installed else ()
    _remove(route for route in installed if route["prefsrc"] not in kept)


def _remove(found: Iterable[_Route]) -> None:
    """Remove routes first: in IPv6 an address that goes leaves them without a source."""
    doomed = list(found)
    lines = _deletions(doomed)
    ends = dict.fromkeys((route["prefsrc"], route["dev"]) for route in doomed)
    force([*lines, *(_taken_from(interface, source) for source, interface in ends)])


def _taken_from(interface: str, address: str) -> str:
    return f"address delete {address}/{ip_address(address).max_prefixlen} dev {interface}"


def _deletions(found: Iterable[_Route]) -> list[str]:
    return [routes.deletion(route["dst"], route) for route in found]


def _destination(route: _Route, version: int) -> IPv4Network | IPv6Network:
    everywhere = "0.0.0.0/0" if version == 4 else "::/0"  # noqa: PLR2004
    return ip_network(everywhere if route["dst"] == "default" else route["dst"])


def _installed(*family: str) -> list[_Route]:
    """Return our routes in the main table, of both IP versions unless one is named."""
    # Asked for one table, `ip` takes IPv4 for granted.
    which = ("table", "all", "proto", str(PROTOCOL))
    listed = ip("-json", "-N", *family, "route", "show", *which)
    # What is asked for is not listed.
    of_ours = ({**each, "protocol": PROTOCOL} for each in json.loads(listed.stdout or "[]"))
    return [each for each in of_ours if "prefsrc" in each and "table" not in each]

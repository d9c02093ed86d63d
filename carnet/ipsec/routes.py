"""Routes of ours into a tunnel, beside whatever leads to the same network already.

A route that was there is never replaced: it comes after ours while that stands, and is what it
was when ours goes. In IPv4 the first of equal metric counts, and so ours comes in front of it.
In IPv6 the least metric counts, and two of one metric are one: so each of ours has its own,
less than that of whatever is there.

They have no gateway: without the tunnel's policies they lead nowhere. So would what carries the
tunnel, where the peer itself is in one of the networks: then a route to it alone keeps the way
that there was.
"""

import json
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Any

from carnet.errors import IPsecError
from carnet.ipsec.iproute import Way, ip

METRIC = 48
"""Of ours in IPv6, at most: the kernel's own is 256, and network managers' are 50 or more."""
_IPV4 = 4

_Listed = dict[str, Any]


def into_tunnel(
    destination: str, interface: str, source: str | None, protocol: int, way: Way | None
) -> list[str]:
    """Return the lines for `ip -batch` that set a route, and keep the peer's way as it is.

    The source is the same: what else is sent to the peer goes into the tunnel, and only what
    carries that, which has a source already, does not.
    """
    if way is None or ip_address(way.peer) not in ip_network(destination):
        return additions(destination, interface, source, protocol)
    peer = str(ip_network(way.peer))
    kept = additions(peer, way.interface, source, protocol, way.gateway)
    # First, so that at no time the peer is out of reach.
    return kept + (
        additions(destination, interface, source, protocol) if destination != peer else []
    )


def additions(
    destination: str,
    interface: str,
    source: str | None,
    protocol: int,
    gateway: str | None = None,
) -> list[str]:
    """Return the lines for `ip -batch` that set a route; none where it is there.

    Raises IPsecError where there are as many in IPv6 as can be.
    """
    source_words = f" src {source}" if source else ""
    # Some gateways are in no network of the interface.
    via = f" via {gateway} onlink" if gateway else ""
    what = f"{destination}{via} dev {interface}{source_words} proto {protocol}"
    version = ip_network(destination).version
    there = _listed(version, "exact", destination)
    mine = (interface, source, str(protocol))
    if any((each.get("dev"), each.get("prefsrc"), each.get("protocol")) == mine for each in there):
        return []
    if version == _IPV4:
        return [f"route prepend {what}"]
    return [f"route add {what} metric {_metric(there, destination)}"]


def _metric(there: list[_Listed], destination: str) -> int:
    """Return the metric by which a route comes before those that are there.

    After many tunnels, each before the one that it replaced, there may be none: then it is one
    that is free.
    """
    taken = {int(each["metric"]) for each in there}
    free = [metric for metric in range(METRIC, 0, -1) if metric not in taken]
    if not free:
        raise IPsecError(f"Too many routes lead to {destination}; end a tunnel that leads there.")
    first = min(taken, default=METRIC + 1)
    return next((metric for metric in free if metric < first), free[0])


def deletions(
    destination: str, protocols: Iterable[str], sources: Iterable[str | None]
) -> Iterable[str]:
    """Yield the lines that take away the routes to a network which have one of these sources."""
    wanted, sources = set(protocols), set(sources)
    for route in _listed(ip_network(destination).version, "exact", destination):
        if route.get("protocol") in wanted and route.get("prefsrc") in sources:
            yield deletion(destination, route)


def deletions_from(source: str, protocols: Iterable[str]) -> Iterable[str]:
    """Yield the lines that take away all routes of such a source, wherever they lead."""
    wanted = set(protocols)
    for route in _listed(ip_address(source).version):
        if route.get("protocol") in wanted and route.get("prefsrc") == source:
            yield deletion(route["dst"], route)


def deletion(destination: str, route: _Listed) -> str:
    """Return the line that takes one route away, as it was listed, and no other."""
    # In IPv6 the kernel looks at no source, and so at the metric; in IPv4 there is none.
    words = (("src", "prefsrc"), ("proto", "protocol"), ("metric", "metric"))
    which = "".join(f" {word} {route[key]}" for word, key in words if key in route)
    return f"route delete {destination} dev {route['dev']}{which}"


def _listed(version: int, *which: str) -> list[_Listed]:
    listed = ip("-json", "-N", f"-{version}", "route", "show", *which)
    found: list[_Listed] = json.loads(listed.stdout or "[]")
    return found

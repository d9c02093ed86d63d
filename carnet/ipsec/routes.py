"""Routes of ours into a tunnel, beside whatever leads to the same network already.

A route that was there is never replaced: it comes after ours while that stands, and is what it
was when ours goes. In IPv4 the first of equal metric counts, and so ours comes in front of it.
In IPv6 the least metric counts; a route of ours has one that nobody else sets.
"""

import json
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any

from carnet.ipsec.iproute import ip

METRIC = 17
"""Of our routes in IPv6: less than the kernel's own (256), and any network manager's."""
_IPV4 = 4


def additions(destination: str, interface: str, source: str | None, protocol: int) -> list[str]:
    """Return the lines for `ip -batch` that set a route; none where it is there."""
    source_words = f" src {source}" if source else ""
    what = f"{destination} dev {interface}{source_words} proto {protocol}"
    version = ip_network(destination).version
    if version != _IPV4:
        return [f"route replace {what} metric {METRIC}"]
    there = _listed(version, "exact", destination, "proto", str(protocol))
    if any((each.get("dev"), each.get("prefsrc")) == (interface, source) for each in there):
        return []
    return [f"route prepend {what}"]


def deletions(
    destination: str, protocols: Iterable[str], sources: Iterable[str | None]
) -> Iterable[str]:
    """Yield the lines that take away the routes to a network which have one of these sources."""
    wanted, sources = set(protocols), set(sources)
    for route in _listed(ip_network(destination).version, "exact", destination):
        if route.get("protocol") in wanted and route.get("prefsrc") in sources:
            yield deletion(destination, route["dev"], route.get("prefsrc"), route["protocol"])


def deletion(destination: str, interface: str, source: str | None, protocol: str) -> str:
    """Return the line that takes one route away, and no other of the same network."""
    # Of IPv6 the kernel looks at no source.
    source_words = f" src {source}" if source else ""
    return f"route delete {destination} dev {interface}{source_words} proto {protocol}"


def _listed(version: int, *which: str) -> list[dict[str, Any]]:
    listed = ip("-json", "-N", f"-{version}", "route", "show", *which)
    found: list[dict[str, Any]] = json.loads(listed.stdout or "[]")
    return found

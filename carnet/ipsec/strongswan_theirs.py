"""What of the kernel is of tunnels that strongSwan's daemon has, as it lists their IKE_SAs.

A request id is made of a tunnel's name, and another's name may have the same: then these tell.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_network
from re import Match
from typing import Any

import msgspec

from carnet.ipsec.xfrm import Policy


class Theirs(msgspec.Struct, frozen=True):
    """The SAs and policies of some tunnels."""

    sas: frozenset[tuple[str, str, int]] = frozenset()
    """By destination, protocol and SPI, which name an SA (RFC 4301 section 4.1)."""
    policies: frozenset[tuple[int, tuple[str, str]]] = frozenset()
    """By request id, and the networks here and there."""

    def has_sa(self, sa: Match[str]) -> bool:
        """Tell of an SA of carnet.ipsec.xfrm."""
        return (sa["dst"], sa["proto"], int(sa["spi"], 16)) in self.sas

    def has_policy(self, policy: Policy) -> bool:
        """Tell of a policy, whichever its direction."""
        return (policy.reqid, policy.ends) in self.policies


NOTHING = Theirs()


def of(ike_sas: Iterable[Mapping[str, Any]]) -> Theirs:
    """Return what the kernel has of these IKE_SAs."""
    listed = list(ike_sas)
    sas = ((there, protocol, int(spi, 16)) for _, there, protocol, spi in kernel_sas(listed))
    return Theirs(
        sas=frozenset(sas),
        policies=frozenset(
            (int(child["reqid"]), pair)
            for sa in listed
            for child in _children(sa)
            for pair in _pairs(child)
        ),
    )


def kernel_sas(ike_sas: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """Yield source, destination, protocol and SPI (hexadecimal) of each of their SAs."""
    for sa in ike_sas:
        here, there = sa["local-host"], sa["remote-host"]
        for child in _children(sa):
            if "spi-out" in child:
                yield here, there, child["protocol"].lower(), child["spi-out"]
            if "spi-in" in child:
                yield there, here, child["protocol"].lower(), child["spi-in"]


def _children(ike_sa: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return list(ike_sa.get("child-sas", {}).values())


def _pairs(child: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the networks here and there; of what is no network nothing is told."""
    here, there = ([*_networks(child.get(ts, ()))] for ts in ("local-ts", "remote-ts"))
    yield from ((one, other) for one in here for other in there)


def _networks(selectors: Iterable[str]) -> Iterator[str]:
    for each in selectors:
        with suppress(ValueError):
            yield str(ip_network(each))

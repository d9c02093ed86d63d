"""Addresses at which Clients come to know Target, and which its configuration does not name.

With MOBIKE strongSwan tells each Client all addresses of its machine (RFC 4555 section 3.4), and
no setting keeps one back. A Client that moves to another network tries them, and ends a tunnel
that then stands at one that was not agreed.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import structlog

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import DriverName
from carnet.ipsec.iproute import ip

_PASSING = frozenset({"temporary", "deprecated"})
"""What keeps an IPv6 address from being one to be found at (RFC 8981)."""

log = structlog.get_logger()


def warn_of_unnamed(driver: Driver, named: Collection[str]) -> None:
    """Have the log say which there are, where the daemon tells of them."""
    if driver.name != DriverName.STRONGSWAN:
        return
    try:
        listed = json.loads(ip("-json", "address", "show", "scope", "global").stdout or "[]")
    except (IPsecError, ValueError):
        return  # nothing depends on it
    found = tuple(unnamed(listed, named))
    if found:
        log.warning("addresses-not-named", addresses=found, remedy=_REMEDY)


_REMEDY = (
    "Name them under `addresses`: a traveller who moves may find Target there, and her tunnel ends"
    " where she was not told so."
)


def unnamed(listed: Iterable[dict[str, Any]], named: Collection[str]) -> Iterator[str]:
    """Yield those on the interfaces that have a named one; `listed` as `ip -json` has it.

    Others are on the side of the networks behind Target, or of what else the machine does.
    """
    for interface in listed:
        lasting = [each for each in interface.get("addr_info", ()) if _PASSING.isdisjoint(each)]
        its = [str(each["local"]) for each in lasting if "local" in each]
        if not set(named).isdisjoint(its):
            yield from (each for each in its if each not in named)

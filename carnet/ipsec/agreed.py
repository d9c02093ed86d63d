"""What stands, held against what was granted: the peer may assign another address each time."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import TypeVar

from carnet.ipsec.driver import TunnelStatus

Read = TypeVar("Read")


def is_between(live: TunnelStatus, virtual_address: str | None, targets: Iterable[str]) -> bool:
    """Tell whether a tunnel has that address inside, and leads to these alone, if there are any.

    One that is not whole yet may have none inside.
    """
    lacks = live.virtual_address is None and not live.established
    at_its_address = lacks or live.virtual_address == virtual_address
    return at_its_address and not elsewhere(live, targets)


def elsewhere(live: TunnelStatus, targets: Iterable[str]) -> list[str]:
    """Return to which other addresses than these a tunnel leads; none, if there are no these."""
    agreed, peers = frozenset(targets), [live.remote_address, *live.other_peers]
    return [each for each in peers if agreed and not _are_among([each], agreed, ip_address)]


def leads_to(live: TunnelStatus, networks: Iterable[str]) -> bool:
    """Tell whether all of these networks are led into a tunnel, and from all of its address.

    The peer may narrow that (RFC 7296 section 2.9), and the rest leaves in clear. Of one that
    has no address inside, or does not tell, there is nothing to say; nor is it not whole yet.
    """
    local, remote = live.local_selectors, live.remote_selectors
    if not live.established or live.virtual_address is None or local is None or remote is None:
        return True
    return has_all_of(remote, networks) and has_all_of(local, [live.virtual_address])


def has_all_of(selectors: Iterable[str], networks: Iterable[str]) -> bool:
    """Tell whether each of these networks is one of the traffic selectors.

    The peer chooses those: a range, or one with protocol or port, is no network.
    """
    return _are_among(networks, selectors, ip_network)


def _are_among(some: Iterable[str], others: Iterable[str], read: Callable[[str], Read]) -> bool:
    """Tell whether each of these is one of the others, however spelled; no nonsense ever is."""
    found = {_read(each, read) for each in others} - {None}
    return all(_read(each, read) in found for each in some)


def _read(text: str, read: Callable[[str], Read]) -> Read | None:
    with suppress(ValueError):
        return read(text)
    return None

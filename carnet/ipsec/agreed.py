"""What stands, held against what was granted: the peer may assign another address each time."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from carnet.ipsec.driver import TunnelStatus


def is_between(live: TunnelStatus, virtual_address: str | None, targets: Iterable[str]) -> bool:
    """Tell whether a tunnel has that address inside, and leads to one of these, if there are any.

    One that is not whole yet may have none inside.
    """
    lacks = live.virtual_address is None and not live.established
    agreed = [ip_address(each) for each in targets]
    return (lacks or live.virtual_address == virtual_address) and (
        not agreed or ip_address(live.remote_address) in agreed
    )


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
    """Tell whether each of these networks is one of the traffic selectors."""
    return _spelled(selectors) >= _spelled(networks)


def _spelled(selectors: Iterable[str]) -> set[str]:
    """Return selectors in one spelling; one with protocol or port stays as it is, unequal."""
    return {s if "[" in s or "|" in s else str(ip_network(s)) for s in selectors}

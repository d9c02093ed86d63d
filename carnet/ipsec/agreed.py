"""What stands, held against what was granted: the peer may assign another address each time."""

from collections.abc import Iterable
from ipaddress import ip_address

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

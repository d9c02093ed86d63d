"""Closed, not open: what is meant for the tunnel never leaves this machine in clear.

IKE daemons take their policies and routes along when a tunnel drops, and the next packet
leaves by the default route. So each session of the Client has a block in the kernel's
packet filter. It is there before the tunnel, needs no process to stay, and goes with the
session or by hand.
"""

from carnet.errors import IPsecError
from carnet.ipsec.block.closed import Closed, PacketFilter
from carnet.ipsec.block.iptables import Iptables
from carnet.ipsec.block.nft import Nft

__all__ = ["Closed", "close", "find_filter", "lift", "names"]

_filters: tuple[PacketFilter, ...] = (Nft(), Iptables())
"""In the order in which they are tried."""


def use(instead: PacketFilter) -> None:
    """Have this process tell another packet filter: one that has the privileges."""
    global _filters  # noqa: PLW0603  one machine, one way to its packet filter
    _filters = (instead,)


def is_possible() -> bool:
    """Tell whether there is a packet filter here that takes a block."""
    return _working() is not None


def find_filter() -> PacketFilter:
    """Return the packet filter of this machine; raises IPsecError where there is none."""
    found = _working()
    if found is not None:
        return found
    raise IPsecError(
        "Nothing here could keep packets from leaving in clear when the tunnel drops; install"
        " nftables and run this as root, or accept that with `--no-block`."
    )


def close(closed: Closed) -> None:
    """Put a session's block into the kernel. Raises IPsecError."""
    find_filter().close(closed)


def lift(name: str) -> None:
    """Take a tunnel's block out, wherever it is; none is no error. Raises IPsecError."""
    found = _working()
    if found is not None and name in found.names():
        found.lift(name)


def names() -> frozenset[str]:
    """Return the tunnels that have a block on this machine."""
    found = _working()
    return found.names() if found is not None else frozenset()


def _working() -> PacketFilter | None:
    """Return the first that works; asking the older iptables would already load its modules."""
    return next((each for each in _filters if each.works()), None)

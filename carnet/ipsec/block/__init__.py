"""Closed, not open: what is meant for the tunnel never leaves this machine in clear.

IKE daemons take their policies and routes along when a tunnel drops, and the next packet
leaves by the default route. So each session of the Client has a block in the kernel's
packet filter. It is there before the tunnel, needs no process to stay, and goes with the
session or by hand.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import msgspec

from carnet.errors import IPsecError
from carnet.ipsec.block.closed import Closed, HeldBack, PacketFilter
from carnet.ipsec.block.iptables import Iptables
from carnet.ipsec.block.nft import Nft

__all__ = [
    "Closed",
    "HeldBack",
    "close",
    "filter_name",
    "find_filter",
    "held_back",
    "lift",
    "names",
]


class _PacketFilters(msgspec.Struct):
    """Those of this machine, in the order in which they are tried."""

    all: tuple[PacketFilter, ...]
    working: PacketFilter | None = None
    """The one that was found to work: to ask takes as long as to tell."""
    begun: "Future[PacketFilter | None] | None" = None
    """A look that goes on, or whose outcome nobody has taken yet."""


_here = _PacketFilters((Nft(), Iptables()))


def use(instead: PacketFilter) -> None:
    """Have this process tell another packet filter: one that has the privileges."""
    _here.all, _here.working, _here.begun = (instead,), None, None


def is_possible() -> bool:
    """Look whether there is a packet filter here that takes a block."""
    return _look() is not None


def look_ahead() -> None:
    """Begin to look on a thread: find_filter() takes what comes of it, and looks no second time.

    To have the kernel try rules takes 12 to 20 ms.
    """
    with suppress(RuntimeError):  # where no thread can be had, it is looked for when it is needed
        _here.begun = ThreadPoolExecutor(1, "filter").submit(_look)


def find_filter() -> PacketFilter:
    """Look for the packet filter of this machine; raises IPsecError where there is none."""
    begun, _here.begun = _here.begun, None
    found = begun.result() if begun else _look()
    if found is not None:
        return found
    raise IPsecError(
        "Nothing here could keep packets from leaving in clear when the tunnel drops; install"
        " nftables and run this as root, or accept that with `--no-block`."
    )


def filter_name() -> str:
    """Return the name of the packet filter that close() tells. Raises IPsecError."""
    return (_here.working or find_filter()).name


def close(closed: Closed) -> None:
    """Put a session's block into the kernel. Raises IPsecError."""
    (_here.working or find_filter()).close(closed)


def lift(name: str, made_by: str | None = None) -> None:
    """Take a tunnel's block out; none is no error.

    `made_by` is the packet filter that it was made with, as filter_name() has it, where that is
    known: another one knows nothing of it. Raises IPsecError.
    """
    found = _working() if made_by is None else _named(made_by)
    if made_by is not None and (found is None or not _answers(found)):
        raise IPsecError(f"The packet filter does not answer ({made_by})")
    if found is not None:
        found.lift(name)


def names(made_by: Iterable[str | None] = ()) -> frozenset[str]:
    """Return the tunnels that have a block on this machine. Raises IPsecError.

    `made_by` are packet filters by which some may be, besides the one that works now.
    """
    return frozenset[str]().union(*(each.names() for each in _asked(made_by)))


def held_back(made_by: Iterable[str | None] = ()) -> dict[str, HeldBack]:
    """Return what the blocks of this machine hold back, by tunnel; see names().

    Whoever has no privileges is told of none. Raises IPsecError.
    """
    found: dict[str, HeldBack] = {}
    for each in _asked(made_by):
        found |= each.held_back()
    return found


def _asked(made_by: Iterable[str | None]) -> list[PacketFilter]:
    asked = dict.fromkeys([_working(), *map(_named, made_by)])
    return [each for each in asked if each is not None]


def _answers(found: PacketFilter) -> bool:
    return found is _here.working or found.works()


def _named(name: str | None) -> PacketFilter | None:
    return next((each for each in _here.all if each.name == name), None)


def _working() -> PacketFilter | None:
    return _here.working or _look()


def _look() -> PacketFilter | None:
    """Find the first that works; asking the older iptables would already load its modules."""
    _here.working = next((each for each in _here.all if each.works()), None)
    return _here.working

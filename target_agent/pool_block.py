"""Closed, not open, at Target: what is for a virtual address never leaves this machine in clear.

A tunnel that drops or ends takes its policies along, and what the work network still sends to
its virtual address would leave by the default route. So the pools are closed in the kernel's
packet filter, from before the first tunnel is prepared. The block needs no process to stay:
it goes when a service stops of which no session lives, or starts without one.
"""

import threading
from collections.abc import Iterable, Sequence
from ipaddress import ip_address, ip_network
from socket import socket

import structlog

from carnet.errors import IPsecError
from target_agent.config import TargetConfig
from target_agent.firewall.pool import FILTERS, PoolFilter

log = structlog.get_logger()


class PoolBlock:
    """The block of one Target; safe to use from several threads.

    Every method raises IPsecError if the packet filter refuses.
    """

    def __init__(self, pools: Sequence[str], filters: Sequence[PoolFilter] = FILTERS) -> None:
        self._pools, self._filters = tuple(pools), filters
        self._closed: tuple[str, ...] = ()
        self._filter: PoolFilter | None = None
        self._made = ""
        self._lock = threading.Lock()

    def close(self, taken: Iterable[str] = ()) -> None:
        """Put it up, as a service does that begins, in the place of what is there.

        `taken` are virtual addresses that live, maybe of another pool. Raises IPsecError where
        no packet filter takes it.
        """
        with self._lock:
            networks = _with(self._pools, taken)
            self._filter = next((each for each in self._filters if each.works(networks)), None)
            if self._filter is None:
                raise IPsecError(
                    "Nothing here could keep packets for travellers from leaving in clear when a"
                    " tunnel drops; install nftables and run this as root, or accept that with"
                    " `block = false` in [tunnels]."
                )
            self._closed = networks
            self._make(self._filter)

    def restore(self) -> None:
        """Make it anew where somebody took it away or changed it."""
        with self._lock:
            found = self._filter
            if found is not None and (not self._made or found.seen() != self._made):
                log.warning("pool-block-gone")
                self._make(found)

    def changes(self) -> socket | None:
        """Return what can be read whenever it may have gone; None where nothing tells.

        The caller closes it. Raises OSError.
        """
        return self._filter.changes() if self._filter else None

    def lift(self) -> None:
        """Take it away, by whichever packet filter it was made; none is no error."""
        with self._lock:
            self._made, self._filter = "", None
            for each in self._filters:
                each.lift()

    def _make(self, found: PoolFilter) -> None:
        self._made = ""
        found.close(self._closed)
        seen = found.seen()
        # What somebody changes meanwhile is not to be taken for the whole from then on.
        found.close(self._closed)
        self._made = seen if found.seen() == seen else ""


def make_pool_block(config: TargetConfig) -> PoolBlock | None:
    """Return the block that the configuration asks for; where it asks for none, lift an older."""
    made = PoolBlock(config.tunnels.pools)
    if config.tunnels.block:
        return made
    made.lift()
    return None


def _with(pools: Sequence[str], taken: Iterable[str]) -> tuple[str, ...]:
    networks = [ip_network(each) for each in pools]
    others = {
        str(ip_network(each))
        for each in taken
        if not any(ip_address(each) in network for network in networks)
    }
    return (*map(str, networks), *sorted(others))

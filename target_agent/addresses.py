"""The pool of virtual addresses: each belongs to one live tunnel at most."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network


class AddressPool:
    """The host addresses of a network, in turn, so that one is not used again at once.

    The database holds the same rule by a unique index; this is what hands out.
    """

    def __init__(self, network: str, taken: Iterable[str] = ()) -> None:
        self._network = ip_network(network)
        self._taken = set(taken)
        whole = self._network.num_addresses
        # A network's first address, and in IPv4 its last, name no host (RFC 1122, RFC 4291).
        self._first, self._end = (1, whole - 1) if whole > 2 else (0, whole)  # noqa: PLR2004
        self._next = self._first

    def take(self) -> str | None:
        """Return an address that no live tunnel has, None if there is none left."""
        if len(self._taken_here()) >= self._end - self._first:
            return None
        while (address := self._step()) in self._taken:
            pass
        self._taken.add(address)
        return address

    def give_back(self, address: str) -> None:
        """Take back the address of a tunnel that is gone."""
        self._taken.discard(address)

    def _step(self) -> str:
        address = str(self._network[self._next])
        self._next = self._next + 1 if self._next + 1 < self._end else self._first
        return address

    def _taken_here(self) -> set[str]:
        """Leave out what was taken of another pool, before the configuration changed."""
        return {address for address in self._taken if ip_address(address) in self._network}

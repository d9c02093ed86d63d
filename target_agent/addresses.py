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
        if self.taken >= self.size:
            return None
        while (address := self._step()) in self._taken:
            pass
        self._taken.add(address)
        return address

    @property
    def taken(self) -> int:
        """How many of its addresses live tunnels have."""
        return len(self._taken_here())

    @property
    def size(self) -> int:
        """How many addresses there are."""
        return self._end - self._first

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


class AddressPools:
    """A pool for each IP version that is carried inside tunnels."""

    def __init__(self, networks: Iterable[str], taken: Iterable[str] = ()) -> None:
        listed = tuple(taken)
        self._pools = {ip_network(each).version: AddressPool(each, listed) for each in networks}
        self._stranded: dict[str, list[str | None]] = {}

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions of which there are addresses: 4, 6."""
        return frozenset(self._pools)

    @property
    def counts(self) -> dict[int, tuple[int, int]]:
        """How many addresses are taken, and how many there are, by IP version."""
        return {version: (pool.taken, pool.size) for version, pool in self._pools.items()}

    def take_for(self, networks: Iterable[str]) -> str | None:
        """Return an address to reach these networks from, all of one IP version; else None."""
        (version,) = {ip_network(network).version for network in networks}
        return self._pools[version].take()

    def give_back(self, address: str | None) -> None:
        """Take back the address of a tunnel that is gone; one that had none gives none."""
        if address is not None:
            for pool in self._pools.values():
                pool.give_back(address)

    def strand(self, tunnel: str, address: str | None) -> None:
        """Keep the address of a tunnel that the IKE daemon does not let go.

        There is one for each time that this was so.
        """
        self._stranded.setdefault(tunnel, []).append(address)

    @property
    def stranded(self) -> tuple[str, ...]:
        """The tunnels whose addresses are kept, until the IKE daemon has been swept."""
        return tuple(self._stranded)

    def free(self, tunnels: Iterable[str]) -> None:
        """Take back the addresses of such tunnels: they are swept."""
        for tunnel in tunnels:
            for address in self._stranded.pop(tunnel, ()):
                self.give_back(address)

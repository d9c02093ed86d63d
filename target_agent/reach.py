"""Which networks strongSwan's userspace ESP carries: those in which Target has an address.

It looks there for the source of its route to the Client, and refuses the IPsec SA, in the
middle of IKE, where there is none.
"""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from carnet.ipsec.iproute import own_addresses


class Reach:
    """Looks at the machine's addresses for networks that were not found to have one before."""

    def __init__(self) -> None:
        self._reached: frozenset[str] = frozenset()

    def out_of_reach(self, networks: Iterable[str]) -> list[str]:
        """Return those networks in which this machine has no address.

        Raises IPsecError if it cannot be asked.
        """
        unknown = [each for each in networks if each not in self._reached]
        lacking = without_address(unknown, own_addresses()) if unknown else []
        self._reached |= set(unknown) - set(lacking)
        return lacking


def without_address(networks: Iterable[str], addresses: Iterable[str]) -> list[str]:
    """Return those networks in which there is none of these addresses."""
    own = [ip_address(address) for address in addresses]
    return [each for each in networks if not any(one in ip_network(each) for one in own)]

"""IP addresses and networks in the one form that whoever reads them takes for the same.

Numbers that begin with 0 are octal to inet_aton(3) and strtoul(3), and so to ip, nft and
iptables: /020 is /16 there, and /20 in Python. So what is told to another program is compared
as it is written. An IPv4-mapped address (RFC 4291 section 2.5.5.2) is one of IPv4 on the wire.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

_MAPPED = IPv6Network("::ffff:0:0/96")


def check_addresses(addresses: Iterable[str]) -> None:
    """Raise ValueError unless each is an IP address in its canonical form."""
    for text in addresses:
        address = ip_address(text)
        mapped = isinstance(address, IPv6Address) and address in _MAPPED
        if mapped or "%" in text or str(address) != text:
            raise ValueError(f"{text!r} is not in canonical form")


def check_networks(networks: Iterable[str]) -> None:
    """Raise ValueError unless each is a network in its canonical CIDR form."""
    for text in networks:
        network = ip_network(text)
        mapped = isinstance(network, IPv6Network) and network.subnet_of(_MAPPED)
        if mapped or "%" in text or str(network) != text:
            raise ValueError(f"{text!r} is not in canonical form")

"""Whether this machine is behind NAT, and by which address Target can be reached.

Host tells anybody at which address it sees him. Nobody vouches for the answer: who is
on the way may write another. So it only ever makes the Client refuse what NAT would
break, and never take something less; what stands in the end, IKE has proved.
"""

import http.client
import socket
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from token_client.host import connected
from token_client.record import Known

_SECONDS = 5
"""For one Host, from the first packet to the last byte."""
_MOST = 64
"""Bytes of an answer that are looked at; an address has 45 at most."""

_IKE_PORT = 500


def behind_nat(hosts: tuple[str, ...], known: Known = ()) -> bool | None:
    """Return whether the first Host that answers sees another address than this machine has.

    `known` is where they are, where their names lead nowhere. None: no Host says.
    """
    for host in hosts:
        with suppress(OSError, ValueError, http.client.HTTPException):
            return _seen_elsewhere(host, known)
    return None


def _seen_elsewhere(host: str, known: Known) -> bool:
    with connected(host, _SECONDS, known) as connection:
        own = ip_address(connection.sock.getsockname()[0])
        connection.request("GET", urlsplit(host).path.rstrip("/") + "/v1/address")
        seen = ip_address(connection.getresponse().read(_MOST).decode("ascii").strip())
    return seen != own


def reachable_first(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Return Target's addresses, those first to which this machine has a way."""
    return tuple(sorted(addresses, key=lambda address: not _has_way_to(address)))


def _has_way_to(address: str) -> bool:
    """Tell by asking the kernel for a route; nothing is sent."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET  # noqa: PLR2004
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _IKE_PORT))
    except OSError:
        return False
    return True

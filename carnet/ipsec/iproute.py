"""iproute2: what the drivers have it do, and ask it."""

import json
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from carnet.errors import IPsecError
from carnet.ipsec import programs

Address = IPv4Address | IPv6Address


def ip(*arguments: str, said: str = "") -> programs.Done:
    """Run `ip` with these arguments and this input; raises IPsecError where that is impossible.

    It may fail: the caller looks.
    """
    try:
        return programs.run(["ip", *arguments], said)
    except FileNotFoundError as error:
        raise IPsecError("The program ip is missing; install the package iproute2.") from error


def force(lines: Iterable[str]) -> None:
    """Have `ip` carry out each of these lines, if there are any; raises IPsecError as ip() does.

    It goes on after one that fails: what somebody else has removed is no error.
    """
    said = "".join(f"{line}\n" for line in lines)
    if said:
        ip("-force", "-batch", "-", said=said)


class NoWayError(IPsecError):
    """No packets leave for a peer just now."""


class Way(msgspec.Struct, frozen=True):
    """How packets leave for a peer: what carries the tunnel to it, once that stands."""

    peer: str
    interface: str
    gateway: str | None = None
    """As `ip route` takes it after "via"."""


def way_to(local_address: str, remote_address: str) -> Way:
    """Return how packets leave for the peer; raises NoWayError where they do not."""
    done = ip("-json", "route", "get", remote_address, "from", local_address)
    try:
        (found,) = json.loads(done.stdout)
        via = found.get("via")  # a gateway of the other IP version
        gateway = f"{via['family']} {via['host']}" if via else found.get("gateway")
        return Way(remote_address, str(found["dev"]), gateway)
    except (ValueError, LookupError) as error:
        raise NoWayError(
            f"There is no way from {local_address} to {remote_address} any more;"
            " check the network, and connect again."
        ) from error


def own_addresses() -> tuple[str, ...]:
    """Return all addresses of this machine; raises IPsecError if it does not tell them."""
    try:
        listed = json.loads(ip("-json", "address", "show").stdout)
    except ValueError as error:
        raise IPsecError("The program ip does not list the machine's addresses.") from error
    # An interface that went meanwhile is an empty object.
    found = (at for each in listed for at in each.get("addr_info", ()))
    return tuple(at["local"] for at in found if "local" in at)


def is_left(local_address: str, remote_address: str, inside: str | None) -> bool:
    """Tell whether this machine has that address no more, though it could go on from another.

    That is no address `inside` the tunnel, of which there may be several, and there is a way to
    the peer. Where nobody tells which addresses there are, none is taken for gone.
    """
    try:
        local, own = ip_address(local_address), set(map(ip_address, own_addresses()))
        if local in own or not _elsewhere(local, own, inside):
            return False
        return not ip("route", "get", str(ip_address(remote_address))).returncode
    except (IPsecError, ValueError):
        return False


def _elsewhere(local: Address, own: set[Address], inside: str | None) -> bool:
    inner = set(map(ip_address, inside.split(", "))) if inside else set()
    return any(
        each.version == local.version and not (each.is_loopback or each.is_link_local)
        for each in own - inner
    )

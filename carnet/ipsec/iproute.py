"""iproute2: what the drivers have it do, and ask it."""

import json

from carnet.errors import IPsecError
from carnet.ipsec import programs


def ip(*arguments: str, said: str = "") -> programs.Done:
    """Run `ip` with these arguments and this input; raises IPsecError where that is impossible.

    It may fail: the caller looks.
    """
    try:
        return programs.run(["ip", *arguments], said)
    except FileNotFoundError as error:
        raise IPsecError("The program ip is missing; install the package iproute2.") from error


def interface_towards(local_address: str, remote_address: str) -> str:
    """Return the interface by which packets leave for the peer; raises IPsecError for none."""
    done = ip("-json", "route", "get", remote_address, "from", local_address)
    try:
        return str(json.loads(done.stdout)[0]["dev"])
    except (ValueError, LookupError) as error:
        raise IPsecError(
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

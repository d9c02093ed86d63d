"""What the options of `carnet connect` ask for."""

import ipaddress

from carnet.errors import UsageError
from carnet.objectives import Objective, choose_option


def objective_asked_for(
    names: tuple[str, ...], threats: tuple[str, ...], minimum: tuple[str, ...]
) -> Objective:
    """Return the one that is named, or that keeps off the threats; raises UsageError."""
    try:
        return choose_option(names, threats, minimum)
    except ValueError as error:
        raise UsageError(str(error)) from error


def networks_asked_for(names: tuple[str, ...], *, transport: bool) -> tuple[str, ...] | None:
    """Return the networks asked for: none for Target alone, None for all she may have.

    Raises UsageError for what is no network, and for networks beside --transport.
    """
    if transport and names:
        raise UsageError("--transport is Target alone; leave out --network, or --transport.")
    return () if transport else _networks(names) or None


def _networks(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return networks as Target will grant them: none within another, neighbours as one."""
    try:
        networks = [ipaddress.ip_network(name) for name in names]
        v4 = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
        v6 = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
        collapsed = [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]
        return tuple(str(network) for network in collapsed)
    except ValueError as error:
        raise UsageError(f"{error}; write a network like 10.20.0.0/16.") from error

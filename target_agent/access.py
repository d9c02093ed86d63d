"""Step 4: membership, then the access control list. Pure: no I/O.

Nothing is downgraded: what she may not have, or what cannot be carried, is refused
with a sentence for the traveller.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from carnet.durations import format_duration
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from carnet.wire.messages import ClientDriver, RefusalCode, Request

IKE_VERSION = 2
MAX_NETWORKS = 32
"""Networks that one tunnel carries; Tunneling Info has no room for more."""

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, order=True)
class AccessEntry:
    """One line of the access control list; `lifetime` is in seconds."""

    objective: Objective
    network: str
    lifetime: int


@dataclass(frozen=True)
class Member:
    """A user whom this Target knows, and what she may have."""

    user_id: str
    since: int
    entries: tuple[AccessEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Carriage:
    """What this Target carries, and on what it insists."""

    target: str
    capabilities: Capabilities
    require_ppk: bool


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the access control list grants for one request."""

    objective: Objective
    networks: tuple[str, ...]
    lifetime: int
    ppk: bool
    entries: tuple[AccessEntry, ...]
    """The lines that grant it."""


class AccessDeniedError(Exception):
    """She may not have it: the code for her program, the sentence for her."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def authorize(request: Request, member: Member | None, carriage: Carriage) -> Terms:
    """Return the terms on which she gets her tunnel; raises AccessDeniedError."""
    _check_target(request, carriage)
    if member is None:
        raise AccessDeniedError(
            RefusalCode.UNKNOWN_USER,
            f"{request.user_id} is not a member at {carriage.target};"
            f" ask the operator of {carriage.target}.",
        )
    entries = _entries_for(request, member, carriage.target)
    lifetime = _lifetime(request, entries)
    networks = _networks(request, entries)
    return Terms(
        objective=Objective(request.objective_id),
        networks=networks,
        lifetime=lifetime,
        ppk=_ppk(request, carriage),
        entries=entries,
    )


def _check_target(request: Request, carriage: Carriage) -> None:
    wanted = request.request_info.target
    if wanted != carriage.target:
        raise AccessDeniedError(
            RefusalCode.UNKNOWN_TARGET,
            f"{wanted} was asked for, but this is {carriage.target};"
            " ask the operator of Host to correct its list of Targets.",
        )


def _entries_for(request: Request, member: Member, target: str) -> tuple[AccessEntry, ...]:
    """Return, for each network wanted, the line that grants it for the longest time."""
    objective = Objective(request.objective_id)
    having = [entry for entry in member.entries if entry.objective is objective]
    if not having:
        raise AccessDeniedError(
            RefusalCode.OBJECTIVE,
            f"{member.user_id} may not have a tunnel with the objective {objective.label};"
            f" ask the operator of {target} for it.",
        )
    wanted = request.request_info.networks
    if wanted == ():
        raise _cannot_carry(
            f"{target} does not carry a tunnel to itself alone (transport mode);"
            " ask for a network behind it."
        )
    networks = wanted or tuple(entry.network for entry in having)
    granting = {_granting(network, having, member.user_id, target) for network in networks}
    return tuple(sorted(granting))


def _granting(network: str, having: list[AccessEntry], user_id: str, target: str) -> AccessEntry:
    covering = [entry for entry in having if _covers(entry.network, network)]
    if not covering:
        raise AccessDeniedError(
            RefusalCode.NETWORK,
            f"{user_id} may not reach {network}; ask the operator of {target} for it.",
        )
    return max(covering, key=lambda entry: entry.lifetime)


def _covers(granted: str, wanted: str) -> bool:
    outer, inner = ip_network(granted), ip_network(wanted)
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _lifetime(request: Request, entries: tuple[AccessEntry, ...]) -> int:
    most = min(entry.lifetime for entry in entries)
    wanted = request.request_info.lifetime
    if wanted is not None and wanted > most:
        raise AccessDeniedError(
            RefusalCode.LIFETIME,
            f"{request.user_id} may have this tunnel for {format_duration(most)} at most,"
            f" not for {format_duration(wanted)}; ask for no more than that.",
        )
    return wanted or most


def _networks(request: Request, entries: tuple[AccessEntry, ...]) -> tuple[str, ...]:
    """Return the traffic selectors, none of them inside another."""
    wanted = request.request_info.networks or tuple(entry.network for entry in entries)
    networks = tuple(str(network) for network in _collapse(wanted))
    if len(networks) > MAX_NETWORKS:
        raise AccessDeniedError(
            RefusalCode.NETWORK,
            f"{request.user_id} may reach {len(networks)} networks, more than the {MAX_NETWORKS}"
            " that one tunnel carries; name those that you need.",
        )
    return networks


def _collapse(networks: tuple[str, ...]) -> list[Network]:
    parsed = [ip_network(network) for network in networks]
    v4 = collapse_addresses(network for network in parsed if isinstance(network, IPv4Network))
    v6 = collapse_addresses(network for network in parsed if isinstance(network, IPv6Network))
    return [*v4, *v6]


def _ppk(request: Request, carriage: Carriage) -> bool:
    """Return whether the tunnel has a PPK: wherever both ends can, and one of hers must fit."""
    objective, here = Objective(request.objective_id), carriage.capabilities
    if not _carries_here(here, objective):
        raise _cannot_carry(
            f"{carriage.target} cannot carry the objective {objective.label};"
            " choose another objective."
        )
    fitting = [driver for driver in request.request_info.drivers if _carries(driver, objective)]
    if not fitting:
        raise _cannot_carry(
            f"No IPsec on your machine carries the objective {objective.label} in tunnel mode"
            " with IKEv2; use another machine, or another objective."
        )
    ppk = here.ppk and any(driver.ppk for driver in fitting)
    if carriage.require_ppk and not ppk:
        raise _cannot_carry(
            f"{carriage.target} requires a post-quantum pre-shared key (RFC 8784), which the"
            " IPsec on your machine does not take; use another machine."
        )
    return ppk


def _carries_here(capabilities: Capabilities, objective: Objective) -> bool:
    return (
        objective in capabilities.objectives
        and Mode.TUNNEL in capabilities.modes
        and IKE_VERSION in capabilities.ike_versions
    )


def _carries(driver: ClientDriver, objective: Objective) -> bool:
    return (
        objective in driver.objectives
        and Mode.TUNNEL in driver.modes
        and IKE_VERSION in driver.ike_versions
    )


def _cannot_carry(reason: str) -> AccessDeniedError:
    return AccessDeniedError(RefusalCode.CANNOT_CARRY, reason)

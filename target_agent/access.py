"""Step 4: membership, then the access control list. Pure: no I/O.

Nothing is downgraded: what she may not have, or what cannot be carried, is refused
with a sentence for the traveller.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from carnet.durations import format_duration
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.spec import Mode, crosses_nat
from carnet.objectives import Objective
from carnet.wire.messages import ClientDriver, RefusalCode, Request

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
    addresses: tuple[str, ...]
    """Its own, at which Clients find it."""
    ip_versions: frozenset[int]
    """Those of which it has virtual addresses to give."""
    capabilities: Capabilities
    """What its IPsec carries; Objective-ID 1 only where the gate can hold it."""
    guards_itself: bool
    """Whether something of Target itself is closed to those who have no tunnel."""
    require_ppk: bool
    allow_ikev1: bool = False
    """Whether a Client that has nothing newer gets IKEv1."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the access control list grants for one request."""

    objective: Objective
    mode: Mode
    target_addresses: tuple[str, ...]
    networks: tuple[str, ...]
    """Behind Target; none: Target alone."""
    lifetime: int
    ike_version: int
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
    wanted = _wanted(request, member, carriage)
    entries = _entries_for(wanted, member, carriage.target)
    lifetime = _lifetime(request, entries)
    mode = Mode.TRANSPORT if wanted.alone or wanted.objective is Objective.NATIVE else Mode.TUNNEL
    networks = () if wanted.alone else _networks(request, wanted, mode, carriage)
    fitting = _fitting(request, mode, carriage)
    ike_version = _ike_version(fitting, carriage)
    if ike_version == 1:
        _check_ikev1(request, mode, networks)
    return Terms(
        objective=wanted.objective,
        mode=mode,
        target_addresses=wanted.own if wanted.alone else carriage.addresses,
        networks=networks,
        lifetime=lifetime,
        ike_version=ike_version,
        ppk=_ppk(fitting, ike_version, carriage),
        entries=entries,
    )


@dataclass(frozen=True)
class _Wanted:
    """What the request comes to, seen beside the lines that she has for its objective."""

    objective: Objective
    networks: tuple[str, ...]
    """Behind Target, or its own addresses as networks of one address each."""
    own: tuple[str, ...]
    """Target's own addresses that are wanted: all or nothing of this tunnel."""
    having: tuple[AccessEntry, ...]

    @property
    def alone(self) -> bool:
        """Whether it is Target alone."""
        return bool(self.own)


def _wanted(request: Request, member: Member, carriage: Carriage) -> _Wanted:
    """Tell Target alone from what is behind it.

    Where she names nothing, what is behind Target is meant, and Target alone if she may
    have nothing else. Target's own addresses are granted one by one.
    """
    objective = Objective(request.objective_id)
    having = tuple(entry for entry in member.entries if entry.objective is objective)
    if not having:
        raise AccessDeniedError(
            RefusalCode.OBJECTIVE,
            f"{member.user_id} may not have a tunnel with the objective {objective.label};"
            f" ask the operator of {carriage.target} for it.",
        )
    own = {str(ip_network(address)): address for address in carriage.addresses}
    networks = request.request_info.networks
    if networks is None:
        networks = tuple(entry.network for entry in having if entry.network not in own)
    if networks:
        return _Wanted(objective, networks, (), having)
    if objective is Objective.NATIVE and not carriage.guards_itself:
        raise _cannot_carry(
            f"{carriage.target} closes nothing of itself, so there is nothing to be opened without"
            " IPsec; ask for a network behind it."
        )
    granted = {network: address for network, address in own.items() if _any_covers(having, network)}
    if not granted:
        raise AccessDeniedError(
            RefusalCode.NETWORK,
            f"{member.user_id} may not reach {carriage.target} itself;"
            f" ask the operator of {carriage.target} for it.",
        )
    return _Wanted(objective, tuple(granted), tuple(granted.values()), having)


def _any_covers(entries: tuple[AccessEntry, ...], network: str) -> bool:
    return any(_covers(entry.network, network) for entry in entries)


def _check_target(request: Request, carriage: Carriage) -> None:
    wanted = request.request_info.target
    if wanted != carriage.target:
        raise AccessDeniedError(
            RefusalCode.UNKNOWN_TARGET,
            f"{wanted} was asked for, but this is {carriage.target};"
            " ask the operator of Host to correct its list of Targets.",
        )


def _entries_for(wanted: _Wanted, member: Member, target: str) -> tuple[AccessEntry, ...]:
    """Return, for each network wanted, the line that grants it for the longest time."""
    granting = {
        _granting(network, wanted.having, member.user_id, target) for network in wanted.networks
    }
    return tuple(sorted(granting))


def _granting(
    network: str, having: tuple[AccessEntry, ...], user_id: str, target: str
) -> AccessEntry:
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


def _networks(request: Request, wanted: _Wanted, mode: Mode, carriage: Carriage) -> tuple[str, ...]:
    """Return the traffic selectors, none of them inside another."""
    collapsed = _collapse(wanted.networks)
    if len(collapsed) > MAX_NETWORKS:
        raise AccessDeniedError(
            RefusalCode.NETWORK,
            f"{request.user_id} may reach {len(collapsed)} networks, more than the {MAX_NETWORKS}"
            " that one tunnel carries; name those that you need.",
        )
    versions = {network.version for network in collapsed}
    if mode is Mode.TUNNEL and len(versions) > 1:
        raise _cannot_carry(
            "One tunnel carries IPv4 or IPv6 inside, not both; name networks of one of them"
            " (--network), and have a second tunnel for the other."
        )
    if mode is Mode.TUNNEL and not versions <= carriage.ip_versions:
        raise _cannot_carry(
            f"{carriage.target} has no virtual addresses of IPv{versions.pop()} to give;"
            " ask its operator."
        )
    return tuple(map(str, collapsed))


def _collapse(networks: tuple[str, ...]) -> list[Network]:
    parsed = [ip_network(network) for network in networks]
    v4 = collapse_addresses(network for network in parsed if isinstance(network, IPv4Network))
    v6 = collapse_addresses(network for network in parsed if isinstance(network, IPv6Network))
    return [*v4, *v6]


def _fitting(request: Request, mode: Mode, carriage: Carriage) -> list[ClientDriver]:
    """Return those of her drivers that carry it, in the order in which she names them."""
    objective = Objective(request.objective_id)
    _check_carried_here(objective, mode, carriage)
    if request.request_info.nat and not crosses_nat(objective, mode):
        raise _cannot_carry(
            f"Your machine is behind NAT, and {objective.label} in {mode} mode does not get"
            " through it; choose esp to the networks behind Target, or another network."
        )
    drivers = request.request_info.drivers
    fitting = [each for each in drivers if objective in each.objectives and mode in each.modes]
    if not fitting:
        raise _cannot_carry(
            f"No IPsec on your machine carries the objective {objective.label} in {mode} mode;"
            " use another machine, or another objective."
        )
    return fitting


def _ike_version(fitting: list[ClientDriver], carriage: Carriage) -> int:
    """Return the newest IKE version that both ends have, IKEv1 only where it is allowed."""
    hers = {version for driver in fitting for version in driver.ike_versions}
    both = hers.intersection(carriage.capabilities.ike_versions)
    if not both:
        raise _cannot_carry(
            f"{carriage.target} and the IPsec on your machine have no version of IKE in common;"
            " use another machine."
        )
    newest = max(both)
    if newest == 1 and not carriage.allow_ikev1:
        raise _cannot_carry(
            f"The IPsec on your machine has IKEv1 alone, which {carriage.target} does not allow;"
            " use another machine, or ask its operator."
        )
    return newest


def _check_ikev1(request: Request, mode: Mode, networks: tuple[str, ...]) -> None:
    """Refuse what IKEv1 has no words for, or no IKE daemon."""
    objective = Objective(request.objective_id)
    if objective not in (Objective.AH, Objective.ESP):
        raise _cannot_carry(
            f"The IPsec on your machine has IKEv1 alone, with which {objective.label} cannot be"
            " carried; use another machine, or another objective."
        )
    if mode is Mode.TUNNEL and len(networks) != 1:
        raise _cannot_carry(
            f"A tunnel with IKEv1 leads to one network, and {len(networks)} were meant;"
            " name the one that you need (--network)."
        )


def _ppk(fitting: list[ClientDriver], ike_version: int, carriage: Carriage) -> bool:
    """Return whether the tunnel has a PPK: wherever both ends can, and IKEv1 has none."""
    hers = any(driver.ppk and ike_version in driver.ike_versions for driver in fitting)
    ppk = ike_version != 1 and carriage.capabilities.ppk and hers
    if carriage.require_ppk and not ppk:
        raise _cannot_carry(
            f"{carriage.target} requires a post-quantum pre-shared key (RFC 8784), which the"
            " IPsec on your machine does not take; use another machine."
        )
    return ppk


def _check_carried_here(objective: Objective, mode: Mode, carriage: Carriage) -> None:
    here = carriage.capabilities
    if objective not in here.objectives:
        raise _cannot_carry(
            f"{carriage.target} cannot carry the objective {objective.label};"
            " choose another objective."
        )
    if mode not in here.modes:
        raise _cannot_carry(
            f"{carriage.target} does not carry {mode} mode; ask for a network behind it."
            if mode is Mode.TRANSPORT
            else f"{carriage.target} does not carry {mode} mode; ask for it alone."
        )


def _cannot_carry(reason: str) -> AccessDeniedError:
    return AccessDeniedError(RefusalCode.CANNOT_CARRY, reason)

"""Tunnels beside each other: none leads to where another leads, or goes.

Routes and policies are the whole machine's, so what is meant for one of two tunnels to one network
would go into the other's, and a tunnel that leads to another's Target would take what carries that.
The block of a session that was lost knows an IPsec policy, and not whose it is. So of tunnels to
several Targets no two may lead to the same addresses; a newer one to the same Target takes the
place of the older. A session without IPsec leads nothing anywhere, but a tunnel would take its
packets: it stands beside no tunnel to its addresses, and beside any other without IPsec.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import product

from carnet.durations import format_duration
from carnet.errors import IPsecError, TakenError
from carnet.objectives import Objective
from carnet.wire.messages import TunnelingInfo
from token_client.means import Wish
from token_client.record import Session
from token_client.unrecorded import Unrecorded

Net = IPv4Network | IPv6Network

_BESIDE = (
    "A tunnel to {target} cannot stand beside the one to {other}, since both would send packets to"
    " {common}; run `carnet disconnect {other}`, then `carnet connect {target}` again with the same"
    " options{again}."
)
_UNRECORDED = (
    "A tunnel to {target} cannot stand beside another of this machine, since both would send"
    " packets to {common} and no record of yours tells of that one; have whoever opened it end it,"
    " or run `carnet disconnect`, then `carnet connect {target}` again with the same"
    " options{again}."
)
_AGAIN = " within {}, which costs no further key pair"


def refuse_wish(
    wish: Wish, sessions: Iterable[Session], unrecorded: Iterable[Unrecorded] = ()
) -> None:
    """Refuse, before a key pair is spent, what could not stand beside the sessions there are.

    Where Target is to say which networks there are, it is refused beside what leads everywhere.
    `unrecorded` is where others lead that no record tells of, see token_client.unrecorded.
    Raises IPsecError.
    """
    for other in _others(sessions, wish.target, wish.objective_id):
        needed = wish.networks or ()
        common = _common(needed, _inside(other) if _is_native(wish.objective_id) else _kept(other))
        if not wish.networks:
            common = _everywhere(_inside(other))
        _refuse(common, wish.target, other, "")
    for led in unrecorded:
        common = _taken(wish.networks, (), led) if wish.networks else _everywhere(led.inside)
        _refuse(common, wish.target, None, "")


def refuse_grant(
    info: TunnelingInfo,
    target: str,
    sessions: Iterable[Session],
    unrecorded: Iterable[Unrecorded] = (),
    *,
    again: int,
) -> None:
    """Refuse what Target granted, where it could not stand beside the sessions there are.

    `again` is for how many seconds the same answer can be gone on with. Raises IPsecError.
    """
    how = _AGAIN.format(format_duration(again)) if again > 0 else ""
    outside = _alone(info.target_addresses)
    inside = info.networks or outside
    for other in _others(sessions, target, info.objective_id):
        common = [] if _is_native(info.objective_id) else _common(inside, _kept(other))
        if not _is_native(other.objective_id):
            common += _common((*inside, *outside), _inside(other))
        _refuse(common, target, other, how)
    for led in unrecorded:
        _refuse(_taken(inside, outside, led), target, None, how)


def goes_on(refused: TakenError, target: str, again: int) -> IPsecError:
    """Return what carnet-helper refused once a key pair was spent, with what to do about that.

    `again` is for how many seconds the same answer can be gone on with.
    """
    if again <= 0:
        return refused
    how = _AGAIN.format(format_duration(again))
    what = f"`carnet connect {target}` again with the same options{how}"
    return TakenError(f"{refused.sentence.rstrip('.')}; then run {what}.")


def _refuse(common: list[str], target: str, other: Session | None, again: str) -> None:
    """Refuse beside that session, or what no record tells of, if they have anything in common."""
    if not common:
        return
    said = {"target": target, "common": common[0], "again": again}
    if other is None:
        raise IPsecError(_UNRECORDED.format(**said))
    raise IPsecError(_BESIDE.format(other=other.target, **said))


def _others(sessions: Iterable[Session], target: str, objective_id: int) -> list[Session]:
    """Return those whose tunnel stands or may, to other Targets; of two at least one is IPsec's."""
    return [
        each
        for each in sessions
        if not each.stage.is_ended
        and each.target != target
        and not (_is_native(objective_id) and _is_native(each.objective_id))
    ]


def _is_native(objective_id: int) -> bool:
    """Tell whether its packets go by the machine's routes, and take nobody's: others take them."""
    return objective_id == Objective.NATIVE


def _taken(inside: Iterable[str], outside: Iterable[str], led: Unrecorded) -> list[str]:
    return _common(inside, led.inside | led.targets) + _common(outside, led.inside)


def _everywhere(networks: Iterable[str]) -> list[str]:
    return [each for each in networks if ip_network(each).prefixlen == 0]


def _inside(session: Session) -> tuple[str, ...]:
    """Return where a session's tunnel leads."""
    return session.networks or _alone(session.target_addresses)


def _kept(session: Session) -> tuple[str, ...]:
    """Return what no other tunnel may lead to: that, and where its own packets go."""
    return _inside(session) + _alone(session.target_addresses)


def _alone(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(ip_network(each)) for each in addresses)


def _common(some: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the smaller one of each two networks that have an address in common."""
    pairs = product(map(ip_network, some), map(ip_network, others))
    return [str(max(pair, key=lambda each: each.prefixlen)) for pair in pairs if _overlap(*pair)]


def _overlap(one: Net, other: Net) -> bool:
    return one.version == other.version and one.overlaps(other)

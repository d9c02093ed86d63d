"""What strongSwan reports over VICI, read and judged: pure functions, no daemon."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

from carnet.ipsec.driver import Change, Lead, TunnelEvent, TunnelStatus
from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.strongswan_algorithms import suite
from carnet.ipsec.strongswan_parts import (
    AH_HALF,
    LAST,
    NATIVE,
    is_ours,
    is_whole,
    part_of,
    tunnel_of,
)

Report = Mapping[str, Any]

_ANYWHERE = "%any"
_BESIDES = "besides"
_ESTABLISHED = "ESTABLISHED"
_REKEYED = "REKEYED"
_LIVE_IKE = (_ESTABLISHED, "REKEYING")
_HANDING_OVER = {_REKEYED, "REKEYING"}
_BEING_DELETED = "DELETING"
_LIVE_CHILD = ("INSTALLED", "REKEYING")


def is_live(ike_sa: Report) -> bool:
    """Whether the IKE_SA stands, as against one that is being made or deleted."""
    return ike_sa.get("state") in _LIVE_IKE


def can_tell_its_end(ike_sa: Report) -> bool:
    """Whether the daemon tells the peer of an IKE_SA's end at once.

    So it does with IKEv2, where the peer has answered all before.
    """
    is_idle = "tasks-active" not in ike_sa
    return ike_sa.get("version") == "2" and ike_sa.get("state") == _ESTABLISHED and is_idle


def is_open_main_mode(connection: Report) -> bool:
    """Whether, as a connection is listed, anybody may come by it with IKEv1."""
    return connection["version"] in ("IKEv1", "IKEv1/2") and _ANYWHERE in connection["remote_addrs"]


def is_handing_over(sas: Iterable[tuple[str, Report]]) -> bool:
    """Whether a rekeyed IKE_SA has not yet handed its CHILD_SAs to its successor.

    For some milliseconds the daemon then lists only the old one, without children; one that
    is deleted for good keeps its children until it is gone.
    """
    found: dict[str, list[Report]] = {}
    for name, ike_sa in sas:
        found.setdefault(name, []).append(ike_sa)
    return any(
        any(_hands_over(name, each) for each in same) and not any(is_up(name, s) for s in same)
        for name, same in found.items()
    )


def _hands_over(name: str, ike_sa: Report) -> bool:
    if ike_sa["state"] == _BEING_DELETED:
        return part_of(name) != NATIVE and not ike_sa.get("child-sas")
    return ike_sa["state"] in _HANDING_OVER


def live_child(ike_sa: Report) -> Report | None:
    """Return the CHILD_SA that carries packets now; rekeyed ones linger beside it."""
    children = _live_children(ike_sa)
    return children[-1] if children else None


def _live_children(ike_sa: Report) -> list[Report]:
    return [c for c in ike_sa.get("child-sas", {}).values() if c["state"] in _LIVE_CHILD]


def is_up(name: str, ike_sa: Report) -> bool:
    """Whether a part stands: an IKE_SA and, but for the native part, its CHILD_SA."""
    childless = part_of(name) == NATIVE
    return is_live(ike_sa) and (childless or live_child(ike_sa) is not None)


def awaits_child(ike_sa: Report) -> bool:
    """Whether, of an IKE_SA of newest_parts(), a CHILD_SA was rekeyed and no successor stands yet.

    So it is where both ends rekey at once, and the peer's answer is late.
    """
    children = [c for each in all_live(ike_sa) for c in each.get("child-sas", {}).values()]
    rekeyed = any(child["state"] == _REKEYED for child in children)
    return is_live(ike_sa) and rekeyed and not live_children(ike_sa)


def newest_parts(sas: Iterable[tuple[str, Report]]) -> dict[str, Report]:
    """Return the live IKE_SAs by connection name, each part's newest that is up, or the newest.

    It is listed with the addresses of all that live, each of which was given to this machine,
    and with the others themselves: a peer may make one besides, and leave any of them alone.
    """
    live: dict[str, list[Report]] = {}
    for name, ike_sa in sas:
        if is_live(ike_sa):
            live.setdefault(name, []).append(ike_sa)
    return {name: _newest(name, each) for name, each in live.items()}


def _newest(name: str, live: Sequence[Report]) -> Report:
    newest = next((each for each in reversed(live) if is_up(name, each)), live[-1])
    given = dict.fromkeys(address for each in live for address in each.get("local-vips", ()))
    besides = [each for each in live if each is not newest]
    return {**newest, "local-vips": list(given), _BESIDES: besides}


def all_live(ike_sa: Report) -> list[Report]:
    """Return an IKE_SA of newest_parts() and those that live besides, itself the last."""
    return [*ike_sa.get(_BESIDES, ()), ike_sa]


def live_children(ike_sa: Report) -> list[Report]:
    """Return the CHILD_SAs of all_live(): any may be left alone, and carry packets then."""
    return [child for each in all_live(ike_sa) for child in _live_children(each)]


def standing_at_once(sas: Iterable[tuple[str, Report]]) -> int:
    """Return how many IKE_SAs live, of the connection that has most.

    One that was rekeyed counts until its peer has deleted it: the daemon keeps it as long.
    """
    kept = (*_LIVE_IKE, _REKEYED)
    found = Counter(name for name, ike_sa in sas if ike_sa.get("state") in kept)
    return max(found.values(), default=0)


def children_at_once(sas: Iterable[tuple[str, Report]]) -> int:
    """Return how many CHILD_SAs the daemon has of these, those included that are going."""
    return sum(len(ike_sa.get("child-sas", ())) for _, ike_sa in sas)


def tells_its_role(sas: Mapping[str, Report]) -> bool:
    """Whether the IKE_SAs of a tunnel say by themselves which end of it this machine is."""
    return bool(_all_virtual_addresses(sas))


def _role(sas: Mapping[str, Report], peer: Sequence[str]) -> Role:
    """Return which end of a tunnel this machine is.

    Who asked for a virtual address has it; who gave it reports it as the peer's. Where
    there is none, only Target expects its peer anywhere. Who initiated does not tell:
    after a rekeying it may be either.
    """
    if any(ike_sa.get("local-vips") for ike_sa in sas.values()):
        return Role.CLIENT
    if _all_virtual_addresses(sas):
        return Role.TARGET
    return Role.CLIENT if peer and _ANYWHERE not in peer else Role.TARGET


def status(name: str, sas: Mapping[str, Report], peer: Sequence[str] = ()) -> TunnelStatus:
    """Return a tunnel's status from the list-sa reports of its parts, one at least.

    `peer` is where the peer is expected, as the daemon lists its connection; empty: not known.
    """
    up = [part for part, ike_sa in sas.items() if is_up(part, ike_sa)]
    first = next(iter(sas.values()))
    inner = [live_child(ike_sa) or {} for ike_sa in sas.values()]
    role = _role(sas, peer)
    leads = next((live_children(sa) for name, sa in sas.items() if part_of(name) != AH_HALF), [])
    live = [each for sa in sas.values() for each in all_live(sa)]
    peers = {each["remote-host"] for each in live}
    return TunnelStatus(
        name=name,
        role=role,
        established=is_whole(part_of(part) for part in up),
        local_address=first["local-host"],
        remote_address=first["remote-host"],
        other_peers=tuple(sorted(peers - {first["remote-host"]})),
        sas=sum(1 + len(each.get("child-sas", ())) for each in live),
        virtual_address=_virtual_address(sas, role),
        unanswered=any("tasks-active" in each for each in live),
        ike_suite="-".join(suite(first)),
        child_suite=", ".join(filter(None, map(_child_suite, reversed(inner)))),
        encapsulated=any(child.get("encap") == "yes" for child in inner),
        ppk=all(ike_sa.get("ppk") == "yes" for ike_sa in sas.values()),
        bytes_in=_count(first, "bytes-in"),
        bytes_out=_count(first, "bytes-out"),
        established_seconds=int(first.get("established", 0)),
        local_selectors=_selectors(leads, "local-ts"),
        remote_selectors=_selectors(leads, "remote-ts"),
    )


def _selectors(children: Sequence[Report], end: str) -> tuple[str, ...] | None:
    """Return what all of them have: the peer may add a narrow one, and delete the others."""
    told = [child[end] for child in children if end in child]
    return tuple(each for each in told[-1] if all(each in one for one in told)) if told else None


def own_address(connection: Report) -> list[str]:
    """Return the virtual address that a Client sets herself, as her connection is listed."""
    if connection["version"] != "IKEv1" or _ANYWHERE in connection["remote_addrs"]:
        return []
    children = connection.get("children", {}).values()
    return [each for child in children for each in _single(child["mode"], child["local-ts"])]


def lead(connections: Mapping[str, Report], sas: Iterable[Report]) -> Lead:
    """Return where the connections of a tunnel lead, with its IKE_SAs.

    Nowhere where anybody may come.
    """
    listed = [each for each in connections.values() if _ANYWHERE not in each["remote_addrs"]]
    children = [child for each in listed for child in each.get("children", {}).values()]
    given = [address for sa in sas for address in sa.get("local-vips", ())]
    return Lead(
        targets=frozenset(to for each in listed for to in each["remote_addrs"] if _is_net(to)),
        networks=frozenset(net for child in children for net in child["remote-ts"] if _is_net(net)),
        inner=frozenset(given).union(*map(own_address, listed)),
        identities=frozenset(each for one in connections.values() for each in _identities(one)),
    )


def _identities(connection: Report) -> set[str]:
    """Return for whom the daemon looks keys up by a connection, as it is listed."""
    ends = [end for key, end in connection.items() if key.startswith(("local-", "remote-"))]
    named = {connection.get("ppk_id"), *(end.get("id") for end in ends)}
    return {each.lower() for each in named - {None, _ANYWHERE}}


def _is_net(text: str) -> bool:
    """Whether it is an address or a network, and no name, nor yet to be given."""
    with suppress(ValueError):
        return bool(ip_network(text))
    return False


def _virtual_address(sas: Mapping[str, Report], role: Role) -> str | None:
    """Return the Client's address inside: given to her, or in IKEv1 her end's only selector.

    Where Target gave more than one it is all of them, which no tunnel was granted.
    """
    given = dict.fromkeys(_all_virtual_addresses(sas))
    if given:
        return ", ".join(given)
    end = "local-ts" if role is Role.CLIENT else "remote-ts"
    children = [live_child(sa) or {} for sa in sas.values() if sa.get("version") == "1"]
    # One that is not installed yet is listed without them.
    whole = [child for child in children if "mode" in child and end in child]
    own = [each for child in whole for each in _single(child["mode"], child[end])]
    return own[0] if own else None


def _single(mode: str, selectors: Sequence[str]) -> list[str]:
    """Return the one address that a tunnel's end consists of, if it is one."""
    # With a port, or where it is a range, it is no network (carnet.ipsec.agreed).
    if mode.lower() != Mode.TUNNEL or len(selectors) != 1 or not _is_net(selectors[0]):
        return []
    network = ip_network(selectors[0])
    return [str(network.network_address)] if network.num_addresses == 1 else []


def _child_suite(child: Report) -> str:
    return f"{child.get('protocol', '')} {'-'.join(suite(child))}".strip()


def _count(ike_sa: Report, what: str) -> int:
    return sum(int(child[what]) for child in ike_sa.get("child-sas", {}).values())


def _all_virtual_addresses(sas: Mapping[str, Report]) -> list[str]:
    return [address for ike_sa in sas.values() for address in virtual_addresses(ike_sa)]


def virtual_addresses(ike_sa: Report) -> list[str]:
    """Return the addresses inside that an IKE_SA has, of either end."""
    return [*ike_sa.get("local-vips", []), *ike_sa.get("remote-vips", [])]


def event(message: Report) -> TunnelEvent | None:
    """Return what a child-updown or ike-updown event says of a tunnel of ours; else None.

    A tunnel is up with its last part, and down or lost with any. Of its other parts, and of
    an IKE_SA without a CHILD_SA yet, it is told that they came up: an address is set by then.
    An IKE_SA that ends reports each of its CHILD_SAs down, so of ends of IKE_SAs only those
    of the childless count. Where it ends without being deleted by either end, the peer was
    silent, or has come anew (INITIAL_CONTACT, RFC 7296 section 2.4).
    """
    up = message.get("up") == "yes"
    for name, sa in message.items():
        if not (isinstance(sa, Mapping) and is_ours(name)):
            continue
        counts = "child-sas" in sa or part_of(name) == NATIVE
        if up:
            whole = counts and part_of(name) in LAST
            return TunnelEvent(tunnel_of(name), Change.UP if whole else Change.ANEW)
        if counts:
            ended = Change.DOWN if sa.get("state") == _BEING_DELETED else Change.LOST
            return TunnelEvent(tunnel_of(name), ended)
    return None


def renewed(message: Report) -> TunnelEvent | None:
    """Return that a tunnel of ours may be another, by an event of a rekeying or move; or None.

    Either end may narrow a CHILD_SA as it is rekeyed (RFC 7296 section 2.9.2), and by MOBIKE the
    peer may be at another address (RFC 4555).
    """
    names = (name for name, sa in message.items() if isinstance(sa, Mapping) and is_ours(name))
    return next((TunnelEvent(tunnel_of(name), Change.ANEW) for name in names), None)


def rekeyed(message: Report, name: str) -> bool:
    """Whether an ike-rekey event is about that tunnel."""
    return name in message

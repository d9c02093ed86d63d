"""The kernel's policies and routes that make AH and ESP one: ESP first, AH around it.

They find the two SAs by their request ids, and so survive rekeying. Through iproute2:
there is no secret in them. They stay when the IKE daemon goes, so that nothing passes
in clear; a sweep takes those away that nobody keeps.
"""

import shutil
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address, ip_network

import msgspec

from carnet.errors import IPsecError
from carnet.ipsec import routes, xfrm
from carnet.ipsec.iproute import Way, force, ip, way_to
from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.xfrm import Policy

PRIORITY = 17319
"""Of every policy of ours, and of no other: a sweep goes by it. Before charon's own."""

HALVES_MARK = 0x40000000
"""What Target's SAs of either half set on the packets that they let in, and on no others."""

_BLOCK = tuple(
    f"src {anyone} dst {anyone} dir {direction} mark {HALVES_MARK:#x} mask {HALVES_MARK:#x}"
    for anyone in ("0.0.0.0/0", "::/0")
    for direction in ("in", "fwd")
)
_BLOCK_LISTED = f"mark {HALVES_MARK:#x}/{HALVES_MARK:#x}"
_HALF_LISTED = f"output-mark {HALVES_MARK:#x}/{HALVES_MARK:#x}"

ROUTE_PROTOCOL = {Role.CLIENT: 202, Role.TARGET: 203}
"""By which routes of ours are known (/etc/iproute2/rt_protos)."""

_OWN_PROTOCOLS = frozenset(map(str, ROUTE_PROTOCOL.values()))


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """ESP and AH between two addresses, for the packets between some pairs of networks."""

    role: Role
    mode: Mode
    ah_mode: Mode
    local_address: str
    remote_address: str
    esp_reqid: int
    ah_reqid: int
    selectors: tuple[tuple[str, str], ...]
    """Here and there, in CIDR notation."""

    @property
    def outgoing(self) -> frozenset[tuple[str, str]]:
        """The selectors of its outgoing policies, as the kernel lists them."""
        return frozenset((_shown(here), _shown(there)) for here, there in self.selectors)


def block_halves() -> None:
    """Have what comes by an SA of either half taken by a bundle's policy, or by none.

    For Target, before anybody can come: it does not know from where, and so cannot have the
    policies yet, and in transport mode the kernel takes by an SA alone what no policy is for.

    Raises IPsecError if the kernel refuses.
    """
    _batch(f"xfrm policy update {each} action block priority {PRIORITY + 1}" for each in _BLOCK)


def unblock_halves() -> None:
    """Take that block away, once there can be no such SAs any more; none is no error.

    It stays while any is left in the kernel, as of a daemon that was killed.
    """
    if _BLOCK_LISTED not in _listed():
        return
    listed = xfrm.list_sas()
    if listed.returncode or _HALF_LISTED in listed.stdout:
        return
    force(f"xfrm policy delete {each}" for each in _BLOCK)


def install(bundle: Bundle) -> None:
    """Put policies and routes into the kernel; those of an older bundle are replaced.

    Raises IPsecError if the kernel refuses; what came before it is then there.
    """
    lines = [line for here, there in bundle.selectors for line in _policies(bundle, here, there)]
    if bundle.mode is Mode.TUNNEL:
        way = way_to(bundle.local_address, bundle.remote_address)
        for here, there in bundle.selectors:
            lines += _routes(bundle, here, there, way)
    # Several networks of Target's are one route to the Client.
    _batch(dict.fromkeys(lines))


def lead_again(esp_reqid: int, local_address: str, remote_address: str) -> None:
    """Set the Client's routes of a bundle which are gone: a link that goes takes them along.

    Raises NoWayError where nothing leads to the peer, IPsecError if the kernel refuses.
    """
    led = [each for each in _of(esp_reqid) if each.direction == "out" and each.mode == Mode.TUNNEL]
    if not led:
        return
    way, protocol = way_to(local_address, remote_address), ROUTE_PROTOCOL[Role.CLIENT]
    lines: dict[str, None] = {}
    for policy in led:
        source = policy.source.partition("/")[0]
        into = routes.into_tunnel(policy.destination, way.interface, source, protocol, way)
        lines |= dict.fromkeys(into)
    if lines:
        _batch(lines)


def remove(
    esp_reqid: int,
    others: Callable[[], Iterable[Bundle]],
    is_kept: Callable[[Policy], bool] = lambda _: False,
) -> None:
    """Take the policies and routes of one bundle out of the kernel; none is no error.

    Those of another bundle with the same request id, if there is one, are to be kept.

    The kernel has one policy for each pair of networks, in transport mode for each pair of
    hosts. So where one of others() is for the same, it takes them over: at no time is there
    none. They are asked for, oldest first, if there is anything to take over.

    Raises IPsecError if the kernel keeps some.
    """
    doomed = [policy for policy in _of(esp_reqid) if not is_kept(policy)]
    if not doomed:
        return
    given_up = {(policy.source, policy.destination) for policy in doomed}
    for other in others():
        if given_up.intersection(other.outgoing):
            install(other)
    _remove([policy for policy in _of(esp_reqid) if not is_kept(policy)])


def sweep(keep: Callable[[], Collection[int]], others: Callable[[], Iterable[Bundle]]) -> bool:
    """Take out every bundle but those of keep(), named by the request id of the ESP half.

    Returns whether there was a block of halves, by the same look.

    That is asked once they are listed: what is tied together meanwhile stays. Whichever of
    others() is for the same takes its policies over, as in remove().

    Raises IPsecError if the kernel keeps some.
    """
    listed = _listed()
    installed = {policy.reqid for policy in _among(listed)}
    kept = keep()
    for esp_reqid in sorted(installed.difference(kept)):
        remove(esp_reqid, others)
    return _BLOCK_LISTED in listed


def _shown(network: str) -> str:
    """Return a network as `ip` shows it in a policy."""
    return str(ip_network(network))


def _policies(bundle: Bundle, here: str, there: str) -> Iterable[str]:
    """Yield the policies; those for incoming packets drop what has not both templates."""
    out = (bundle.local_address, bundle.remote_address)
    yield _policy(bundle, "out", (here, there), out)
    for direction in ("in", "fwd"):
        yield _policy(bundle, direction, (there, here), out[::-1])


def _policy(
    bundle: Bundle, direction: str, selector: tuple[str, str], outer: tuple[str, str]
) -> str:
    source, destination = selector
    ends = f"src {outer[0]} dst {outer[1]}" if bundle.mode is Mode.TUNNEL else ""
    return (
        f"xfrm policy update src {source} dst {destination} dir {direction} priority {PRIORITY}"
        f" tmpl {ends} proto esp reqid {bundle.esp_reqid} mode {bundle.mode}"
        f" tmpl {ends} proto ah reqid {bundle.ah_reqid} mode {bundle.ah_mode}"
    )


def _routes(bundle: Bundle, here: str, there: str, way: Way) -> list[str]:
    """Return what sets a route without a gateway: without its policy, it leads nowhere."""
    source = here.partition("/")[0] if bundle.role is Role.CLIENT else None
    return routes.into_tunnel(there, way.interface, source, ROUTE_PROTOCOL[bundle.role], way)


def _remove(doomed: Collection[Policy]) -> None:
    if not doomed:
        return
    lines = list(map(xfrm.deletion, doomed))
    for policy in doomed:
        if policy.direction == "out":
            lines += _route_deletions(policy)
    force(lines)
    kept = set(doomed).intersection(_installed())
    for policy in kept:
        raise IPsecError(
            f"The kernel keeps the policy for {policy.source} to {policy.destination};"
            " remove it with `ip xfrm policy delete`."
        )


def _route_deletions(policy: Policy) -> Iterable[str]:
    """Yield what removes the routes beside an outgoing policy.

    The Client's have her virtual address as their source, which they lose in IPv6 when the
    address goes first, and so does the one that keeps the peer's way. Another tunnel's to the
    same network has an address of its own, and stays.
    """
    source = policy.source.partition("/")[0]
    led = [policy.destination]
    if ip_address(policy.peer) in ip_network(policy.destination):
        led.append(str(ip_network(policy.peer)))
    for destination in dict.fromkeys(led):
        yield from routes.deletions(destination, _OWN_PROTOCOLS, (None, source))
    yield from routes.deletions_from(source, _OWN_PROTOCOLS)


def _listed() -> str:
    """Return all policies; none where the kernel has no IPsec, or nobody could have made any."""
    return xfrm.list_policies().stdout if shutil.which("ip") else ""


def _installed() -> list[Policy]:
    return _among(_listed())


def _among(listed: str) -> list[Policy]:
    """Return our policies among those that are listed."""
    return [each for each in xfrm.policies(listed.splitlines()) if each.priority == PRIORITY]


def _of(esp_reqid: int) -> list[Policy]:
    return [policy for policy in _installed() if policy.reqid == esp_reqid]


def _batch(lines: Iterable[str]) -> None:
    done = ip("-batch", "-", said="".join(f"{line}\n" for line in lines))
    if done.returncode:
        why = done.stderr.strip().splitlines()
        raise IPsecError(
            f"The kernel does not tie AH and ESP together ({why[0] if why else 'no reason'});"
            " choose another objective, or another machine."
        )

"""Of which IKE_SAs a tunnel consists in strongSwan: one, or two for AH and ESP together.

charon takes `esp_proposals` and `ah_proposals` of one child for alternatives, and would
come up with ESP alone. So AH and ESP are two connections, each with identities and keys
of its own, whose CHILD_SAs install no policies; the kernel's policies that tie the two
together are ours (carnet.ipsec.bundle). Without IPsec there is an IKE_SA without
CHILD_SA (RFC 6023): it proves at which address the Client is, and ends with her session.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from carnet.ipsec.spec import NAME_PREFIX, Mode, Role, TunnelSpec
from carnet.objectives import Objective

IPNetwork = IPv4Network | IPv6Network

NATIVE = "/native"
ESP_HALF = "/esp"
AH_HALF = "/ah"
"""What follows the tunnel's name in a connection's; no tunnel's name has a slash in it.

Of a tunnel that is one IKE_SA with one CHILD_SA the connection has the bare name.
"""

LAST = ("", NATIVE, AH_HALF)
"""The part that makes a tunnel whole: it is initiated last."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One connection: an IKE_SA and its CHILD_SA, both of one name."""

    name: str
    protocol: str
    """"ESP" or "AH"; empty for an IKE_SA without CHILD_SA."""
    mode: str
    """As strongSwan writes it."""
    proposals: tuple[str, ...]
    local_identity: str
    remote_identity: str
    local_selectors: tuple[str, ...]
    """Empty: what this end is, or gets as its virtual address."""
    remote_selectors: tuple[str, ...]
    takes_address: bool
    """Whether the Client's virtual address belongs to this IKE_SA."""
    reqid: int | None
    """None: the daemon's own."""
    tied: bool
    """Whether its policies are ours, which tie it to the other half."""
    psk: bytes = field(repr=False)
    ppk: bytes | None = field(repr=False)
    ppk_id: str | None


def tunnel_of(name: str) -> str:
    """Return the name of the tunnel that a connection, child or pool belongs to."""
    return name.partition("/")[0]


def connection_names(tunnel: str) -> tuple[str, ...]:
    """Return the names that the connections of a tunnel, and their IKE_SAs, may have."""
    return tuple(tunnel + part for part in ("", NATIVE, ESP_HALF, AH_HALF))


def part_of(name: str) -> str:
    """Return which part of its tunnel a connection is."""
    return name.removeprefix(tunnel_of(name))


def is_half(name: str) -> bool:
    """Whether a connection is ESP or AH alone of a tunnel of both."""
    return part_of(name) in (ESP_HALF, AH_HALF)


def is_ours(name: str) -> bool:
    """Whether a connection, pool or key was loaded by Carnet."""
    return name.startswith(NAME_PREFIX)


def is_whole(parts: Iterable[str]) -> bool:
    """Whether these parts of one tunnel are all of it."""
    found = set(parts)
    return bool(found & {"", NATIVE}) or found >= {ESP_HALF, AH_HALF}


def reqids(name: str) -> tuple[int, int]:
    """Return the request ids of a tunnel's ESP and AH half, which tie SAs to policies.

    They are found from the name alone, also by who comes after a crash. The boot id
    makes them this machine's own: a Client chooses the Request ID in the name, and could
    otherwise choose one that meets another tunnel's. Far above those that charon counts.
    """
    digest = hashlib.sha256(_boot_id() + name.encode()).digest()
    esp = 1 << 30 | int.from_bytes(digest[:4], "big") >> 3 << 1
    return esp, esp + 1


def meets(name: str, others: Iterable[str]) -> bool:
    """Tell whether a tunnel of that name would have the request ids of another of these.

    Whoever is on this machine knows its boot id, and finds such a name within minutes.
    """
    ours = reqids(name)
    return any(reqids(other) == ours for other in others if other != name)


def is_of_client(reqid: int) -> bool:
    """Tell of a tunnel with one SA, by its request id, whether this is the Client's end."""
    return reqid % 2 == 0


def _boot_id() -> bytes:
    try:
        return _BOOT_ID.read_bytes()
    except OSError:  # not Linux: there it is only shown
        return b""


def _reqid(spec: TunnelSpec) -> int | None:
    """Return the request id of a tunnel with one SA: of the two, one for each end.

    In transport mode it is the daemon's: two tunnels between the same two hosts have the
    same policies, and charon takes these for one request id only.
    """
    client, target = reqids(spec.name)
    if spec.mode is Mode.TRANSPORT:
        return None
    return client if spec.role is Role.CLIENT else target


def parts(spec: TunnelSpec) -> tuple[Part, ...]:
    """Return the parts of a tunnel, in the order in which they are initiated."""
    if spec.objective is Objective.NATIVE:
        return (_part(spec, NATIVE, ""),)
    if spec.objective is Objective.AH_ESP:
        return (_part(spec, ESP_HALF, "ESP"), _ah_half(spec))
    return (_part(spec, "", "AH" if spec.objective is Objective.AH else "ESP"),)


def _part(spec: TunnelSpec, suffix: str, protocol: str) -> Part:
    tied = spec.objective is Objective.AH_ESP
    return Part(
        name=spec.name + suffix,
        protocol=protocol,
        mode=str(spec.mode),
        proposals=spec.ah_proposals if protocol == "AH" else spec.esp_proposals,
        local_identity=spec.local_identity,
        remote_identity=spec.remote_identity,
        local_selectors=spec.local_networks if protocol else (),
        remote_selectors=spec.remote_networks if protocol else (),
        takes_address=spec.mode is Mode.TUNNEL,
        reqid=reqids(spec.name)[0] if tied else _reqid(spec),
        tied=tied,
        psk=spec.psk,
        ppk=spec.ppk,
        ppk_id=spec.ppk_id,
    )


def ah_mode(spec: TunnelSpec) -> Mode:
    """Return the mode of the AH half: what it protects are the ESP packets.

    Transport mode spares an IP header. Inside a tunnel it takes an SA whose selector is
    of the inner IP version, and the kernel wants that to be the outer one; which that is
    must be certain before anybody comes. Nor may it have Target's own address in it: what
    has AH alone and leads there would need no policy to be taken.
    """
    if spec.mode is Mode.TRANSPORT:
        return Mode.TRANSPORT
    target = spec.remote_addresses if spec.role is Role.CLIENT else spec.local_addresses
    behind = spec.remote_networks if spec.role is Role.CLIENT else spec.local_networks
    outer = {_version(address) for address in target}
    if outer != {_inner_version(spec)} or not behind:
        return Mode.TUNNEL
    around = _around(behind)
    own = any(ip_address(address) in around for address in target)
    return Mode.TUNNEL if own else Mode.TRANSPORT


def _ah_half(spec: TunnelSpec) -> Part:
    """Return the part that negotiates AH around the ESP packets.

    Within a tunnel in transport mode its selectors are proxies for what is inside, so that
    with AH alone nobody gets by from elsewhere, nor to elsewhere.
    """
    half = spec.ah_half
    if half is None:
        raise TypeError("AH and ESP need a second connection's identities and keys")
    mode = ah_mode(spec)
    proxy = mode is Mode.TRANSPORT and spec.mode is Mode.TUNNEL
    local, remote = [(str(each),) for each in _proxies(spec)] if proxy else ((), ())
    return Part(
        name=spec.name + AH_HALF,
        protocol="AH",
        mode=f"{mode}_proxy" if proxy else str(mode),
        proposals=spec.ah_proposals,
        local_identity=half.local_identity,
        remote_identity=half.remote_identity,
        local_selectors=local,
        remote_selectors=remote,
        takes_address=False,
        reqid=reqids(spec.name)[1],
        tied=True,
        psk=half.psk,
        ppk=half.ppk,
        ppk_id=half.ppk_id,
    )


def _proxies(spec: TunnelSpec) -> tuple[IPNetwork, IPNetwork]:
    """Return the selectors of the AH half for what is inside a tunnel: here and there.

    One pair, since charon gives the kernel one only; which networks there are within it is
    for our policies to say. Wider than one address, which charon would take for the SA's own.
    """
    client = _around([spec.virtual_address or ""])
    behind = _around(spec.remote_networks if spec.role is Role.CLIENT else spec.local_networks)
    return (client, behind) if spec.role is Role.CLIENT else (behind, client)


def _around(networks: Sequence[str]) -> IPNetwork:
    """Return the smallest network around all of these, of two addresses at least."""
    each = [ip_network(network) for network in networks]
    first, last = min(int(e[0]) for e in each), max(int(e[-1]) for e in each)
    length = each[0].max_prefixlen - max((first ^ last).bit_length(), 1)
    return ip_network((each[0][0], length), strict=False)


def _inner_version(spec: TunnelSpec) -> int | None:
    return _version(spec.virtual_address or "")


def _version(address: str) -> int | None:
    """Return an address's IP version, None for a host name, which may have both."""
    try:
        return ip_address(address).version
    except ValueError:
        return None

"""What of the machine a user's tunnel and its block take, and what they need of it.

Routes, policies and packet filters are the whole machine's. Where two tunnels led to one network
the packets of one user would go into the other's, so no two users have tunnels to one network;
and what a tunnel needs to come up, and to stay, is no other's to take. Many have the same
Target and the same Hosts. But no two have an IKE identity in common: a daemon looks a key up by
that alone, and takes the one that it was given last; whoever answers in Target's place is told it.
"""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import msgspec

from carnet.ipsec.driver import Lead
from carnet.ipsec.helper.messages import Block, Spec
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective

_Span = tuple[tuple[int, int], tuple[int, int]]
"""The first and the last address of a network, each after its IP version."""


_NAMES = frozenset({53, 853})
"""TCP ports at which name servers are asked (RFC 7766, RFC 7858)."""


class Leading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a tunnel becomes routes and policies of this machine: no word of it may change."""

    objective: Objective
    mode: Mode
    ike_version: int
    targets: frozenset[str]
    networks: frozenset[str]
    virtual_address: str | None

    @property
    def inside(self) -> frozenset[str]:
        """The networks to which it leads, Target alone where there are no others."""
        return self.networks or frozenset(str(ip_network(each)) for each in self.targets)


def leading(spec: Spec) -> Leading:
    """Return where that tunnel leads, and how."""
    return Leading(
        objective=spec.objective,
        mode=spec.mode,
        ike_version=spec.ike_version,
        targets=frozenset(spec.remote_addresses),
        networks=frozenset(spec.remote_networks),
        virtual_address=spec.virtual_address,
    )


def identities(spec: Spec) -> frozenset[str]:
    """Return for whom the daemon gets keys with that tunnel, PPKs too, in small letters."""
    ends = (spec, spec.ah_half) if spec.ah_half else (spec,)
    named = (each for end in ends for each in (end.local_identity, end.remote_identity, end.ppk_id))
    return frozenset(each.lower() for each in named if each is not None)


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a block holds back, and what of it leaves all the same."""

    networks: frozenset[str]
    targets: frozenset[str] = frozenset()
    """To which IKE, ESP and AH leave."""
    hosts: frozenset[tuple[str, int]] = frozenset()
    """Addresses and TCP ports."""

    def holds(self, networks: frozenset[str]) -> bool:
        """Tell whether it holds back what is meant for these, queries for names above all."""
        return networks <= self.networks and _NAMES.isdisjoint(port for _, port in self.hosts)


def held(block: Block) -> Held:
    """Return what that block holds back."""
    return Held(
        networks=frozenset(block.networks),
        targets=frozenset(map(_number, block.targets)),
        hosts=frozenset((_number(address), port) for address, port in block.hosts),
    )


class Holding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tunnel, or what is left of one."""

    uid: int
    installed: Leading | None = None
    """What the daemon was given last; None before that."""
    blocks: tuple[Held, ...] = ()
    """Its block; where it could not be made as another, any of these may be what stands."""
    made_by: str | None = None
    """With which packet filter packets in clear are held back; None where they are not."""
    identities: frozenset[str] = frozenset()
    """For whom the daemon was given keys with what is installed."""

    @property
    def networks(self) -> frozenset[str]:
        """All to which it leads, or to which it holds packets back."""
        inside = self.installed.inside if self.installed else frozenset()
        return inside.union(*(each.networks for each in self.blocks))

    @property
    def inner(self) -> frozenset[str]:
        """Its address inside the tunnel, which is this machine's."""
        address = self.installed.virtual_address if self.installed else None
        return frozenset((address,) if address else ())

    @property
    def targets(self) -> frozenset[str]:
        """Target's addresses."""
        outside = self.installed.targets if self.installed else frozenset()
        return frozenset(map(_number, outside)).union(*(each.targets for each in self.blocks))

    @property
    def hosts(self) -> frozenset[tuple[str, int]]:
        """Addresses and ports of its Hosts, as its block has them."""
        return frozenset[tuple[str, int]]().union(*(each.hosts for each in self.blocks))

    def joined(self, wanted: "Holding") -> "Holding":
        """Return what becomes of it where that is wanted too: what there was of it stays."""
        return Holding(
            uid=wanted.uid,
            installed=wanted.installed or self.installed,
            blocks=tuple(dict.fromkeys(self.blocks + wanted.blocks)),
            made_by=wanted.made_by or self.made_by,
            identities=wanted.identities or self.identities,
        )

    def is_another_than(self, before: "Holding") -> bool:
        """Tell whether its tunnel leads elsewhere than it did before, or is called otherwise.

        What it was called a former helper did not write down.
        """
        called = before.identities or self.identities
        return (self.installed, self.identities) != (before.installed, called)


def holdings(lead: Lead) -> list[Holding]:
    """Return what a tunnel holds that root made past the helper; of its block nothing is known."""
    leading = Leading(
        objective=Objective.ESP,
        mode=Mode.TUNNEL,
        ike_version=2,
        targets=lead.targets,
        networks=lead.networks,
        virtual_address=None,
    )
    return [
        Holding(
            0,
            msgspec.structs.replace(leading, virtual_address=each),
            identities=lead.identities,
        )
        for each in lead.inner or (None,)
    ]


def collide(one: Holding, other: Holding) -> bool:
    """Tell whether one would get, or hold back, what is meant for the other."""
    return bool(_taken(one, other) or _taken(other, one))


def collides_further(one: Holding, before: Holding, other: Holding) -> bool:
    """Tell whether one would do so in more than it did as it was before, when it held less.

    What it takes of the other, and what it needs of what the other takes, are apart: who has
    needed an address may not lead it into a tunnel for that.
    """
    return not (
        _are_within(_taken(one, other), _taken(before, other))
        and _are_within(_taken(other, one), _taken(other, before))
    )


def _taken(one: Holding, other: Holding) -> set[_Span]:
    """Return what of the other's would go into one's tunnel or to its address, or nowhere.

    Into a tunnel to Target alone goes only what is sent to that, and it gets there.
    """
    needed = other.targets | _addresses(other.hosts)
    led = one.installed.networks if one.installed else frozenset[str]()
    return _common(one.inner | one.networks, other.inner | other.networks).union(
        _common(one.inner | led, needed),
        *(_common(each.networks, _held_back(each, other)) for each in one.blocks),
    )


def _held_back(block: Held, other: Holding) -> frozenset[str]:
    """Return the other's Target and Hosts, but for what the block lets through to them."""
    return other.targets - block.targets | _addresses(other.hosts - block.hosts)


def _addresses(hosts: Iterable[tuple[str, int]]) -> frozenset[str]:
    return frozenset(address for address, _ in hosts)


def _common(some: Iterable[str], others: Iterable[str]) -> set[_Span]:
    """Return what is in any of some and in any of the others."""
    spans = list(map(_span, others))
    found = (
        (max(one[0], each[0]), min(one[1], each[1])) for one in map(_span, some) for each in spans
    )
    return {(first, last) for first, last in found if first <= last}


def _are_within(spans: Iterable[_Span], others: Iterable[_Span]) -> bool:
    """Tell whether each is within one of the others."""
    return all(any(o[0] <= s[0] and s[1] <= o[1] for o in others) for s in spans)


def _span(network: str) -> _Span:
    net = ip_network(network)
    return (net.version, int(net[0])), (net.version, int(net[-1]))


def _number(address: str) -> str:
    """Return an address in the one way of writing it."""
    return str(ip_address(address))

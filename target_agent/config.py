"""The Target's configuration file."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from carnet.canonical import check_addresses, check_networks
from carnet.config import (
    LocalAddress,
    Section,
    SettingError,
    about,
    check_once,
    load_config,
)
from carnet.ipsec.drivers import Choice, DriverName
from carnet.ipsec.strongswan_algorithms import faults, weak_words
from carnet.link import LinkSection
from carnet.observation import ObservationSection, Place
from carnet.wire.fields import (
    Address,
    Name,
    Network,
    Seconds,
    Token,
)
from carnet.wire.suites import ALL_SUITES, SuiteName
from target_agent.firewall import FirewallName
from target_agent.proposals import IKEV1_PROFILES, PROFILES, Profile, ProposalSet

DEFAULT_PATH = Path("/etc/carnet/target.toml")
PATH_VARIABLE = "CARNET_TARGET_CONFIG"

Port = Annotated[int, Meta(ge=1, le=65535)]
Interface = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_.-]{1,15}\Z",
        description="the name of a network interface, such as eth0",
    ),
]
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/3",
            "::/127",
            "fe80::/10",
            "ff00::/8",
        ),
    )
)
"""This host, loopback, link-local, multicast and reserved (RFC 6890)."""
Proposals = Annotated[tuple[Token, ...], Meta(min_length=1, max_length=8)]


class TunnelsSection(Section, frozen=True, kw_only=True):
    """What every tunnel of this Target has in common."""

    addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=8)]
    """Where the Client's IKE finds this Target."""
    networks: Annotated[tuple[Network, ...], Meta(min_length=1, max_length=32)]
    """What is behind it; nobody is granted anything else."""
    virtual_addresses: Network
    """The pool of which each tunnel gets one address."""
    virtual_addresses_v6: Network | None = None
    """A second pool, for tunnels to IPv6 networks where the first is of IPv4."""
    dns: Annotated[tuple[Address, ...], Meta(max_length=8)] = ()
    mtu: Annotated[int, Meta(ge=576, le=65535)] | None = None
    profile: Profile = Profile.MODERN
    """Which algorithms are proposed, where they are not named one by one."""
    insecure_benchmark_suites: bool = False
    """Whether algorithms that protect nobody any more may be proposed, for benchmarks."""
    ike_proposals: Proposals | None = None
    esp_proposals: Proposals | None = None
    ah_proposals: Proposals | None = None
    require_ppk: bool = True
    """Whether a Client without post-quantum pre-shared keys (RFC 8784) is refused."""
    allow_ikev1: bool = False
    """Whether a Client that has no IKEv2 is served with IKEv1, which knows no such keys."""
    force_udp: bool = False
    resume_within: Annotated[int, Meta(ge=0, le=7 * 86400)] = 7200
    """Seconds for which a Client may be silent and come back, while her session lives. Unless
    it is 0, the pre-shared key stays in the IKE daemon's memory until the session ends, and
    not only until the tunnel stands."""
    dead_peer_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30
    """Silence after which a Client is asked whether she is alive."""
    initiate_within: Seconds = 120
    """Seconds after which a tunnel that nobody initiates is withdrawn."""
    block: bool = True
    """Whether what is for a virtual address is kept from leaving this machine in clear."""

    def __post_init__(self) -> None:
        """Raise ValueError for what is no address or network, lacks a pool, or is weak."""
        with about("addresses"):
            _check_hosts(self.addresses)
        with about("dns"):
            _check_hosts(self.dns)
        with about("networks"):
            check_networks(self.networks)
        self._check_pools()
        named = (self.ike_proposals, self.esp_proposals, self.ah_proposals)
        if self.allow_ikev1 and any(named):
            raise SettingError(
                "allow_ikev1",
                "allow_ikev1 takes algorithms from the profile alone; leave out ike_proposals,"
                " esp_proposals and ah_proposals",
            )
        if self.allow_ikev1 and self.require_ppk:
            raise SettingError(
                "allow_ikev1",
                "IKEv1 has no post-quantum pre-shared keys; allow_ikev1 takes require_ppk = false",
            )
        _check_proposals(self.proposals, allow_weak=self.insecure_benchmark_suites)

    def _check_pools(self) -> None:
        """Raise ValueError unless addresses of each version are given out, and none of networks."""
        for key in ("virtual_addresses", "virtual_addresses_v6"):
            with about(key):
                check_networks(tuple(filter(None, [getattr(self, key)])))
        networks, pools = (
            [ip_network(each) for each in named] for named in (self.networks, self.pools)
        )
        versions = [pool.version for pool in pools]
        if versions not in ([4], [6], [4, 6]):
            raise SettingError(
                "virtual_addresses_v6",
                "virtual_addresses_v6 must be of IPv6, virtual_addresses then of IPv4",
            )
        if any(network.version not in versions for network in networks):
            raise SettingError(
                "networks", "networks of an IP version need virtual addresses of that version"
            )
        own = [ip_network(each) for each in (*self.addresses, *self.dns)]
        for key, pool in zip(("virtual_addresses", "virtual_addresses_v6"), pools, strict=False):
            if pool.prefixlen == 0 or any(_covers(pool, network) for network in own + networks):
                raise SettingError(
                    key, f"{pool} holds addresses that others have; name a network of its own"
                )
            if any(_overlap(pool, special) for special in _SPECIAL):
                raise SettingError(key, f"{pool} holds addresses that no machine may be given")

    @property
    def pools(self) -> tuple[str, ...]:
        """The networks of which virtual addresses are taken."""
        second = self.virtual_addresses_v6
        return (self.virtual_addresses,) if second is None else (self.virtual_addresses, second)

    @property
    def proposals(self) -> ProposalSet:
        """The proposals: the profile's, and in their place those that are named."""
        named = PROFILES[self.profile]
        return ProposalSet(
            ike=self.ike_proposals or named.ike,
            esp=self.esp_proposals or named.esp,
            ah=self.ah_proposals or named.ah,
        )

    def proposals_for(self, ike_version: int) -> ProposalSet:
        """Return the proposals for a version of IKE; what may be named are those of IKEv2."""
        return self.proposals if ike_version != 1 else IKEV1_PROFILES[self.profile]


def _covers(pool: IPv4Network | IPv6Network, network: IPv4Network | IPv6Network) -> bool:
    return _overlap(pool, network) and pool.prefixlen <= network.prefixlen


def _check_proposals(proposed: ProposalSet, *, allow_weak: bool) -> None:
    """Raise ValueError for what is weak, unless that is allowed, and for what no tunnel has."""
    wrong = faults(ike=proposed.ike, esp=proposed.esp, ah=proposed.ah)
    if wrong:
        raise ValueError(f"no tunnel may be had by {', '.join(wrong)}; name other proposals")
    weak = weak_words(proposed.ike + proposed.esp + proposed.ah)
    if weak and not allow_weak:
        raise ValueError(
            f"{', '.join(weak)} protect nobody; insecure_benchmark_suites = true lets them"
            " through, for benchmarks"
        )


class GateSection(Section, frozen=True, kw_only=True):
    """The gate for tunnels without IPsec: what is closed to all who have none."""

    outside: Annotated[tuple[Interface, ...], Meta(min_length=1, max_length=16)]
    """The interfaces that face travellers; what comes in there is let through by a session."""
    ports: Annotated[tuple[Port, ...], Meta(max_length=15)] = ()
    """TCP and UDP ports of this machine itself that are closed too."""
    firewall: FirewallName = FirewallName.NFT
    """What the kernel's packet filter is told by."""


class IPsecSection(Section, frozen=True, kw_only=True):
    """Which IPsec implementation carries the tunnels."""

    driver: DriverName | None = None
    """Left out: the one whose daemon is there, or which is installed, when a program begins."""


class StrongSwanSection(Section, frozen=True, kw_only=True):
    """strongSwan's IKE daemon."""

    socket: Path | None = None
    """Its VICI socket; left out: where strongSwan puts it."""


class LibreswanSection(Section, frozen=True, kw_only=True):
    """Libreswan's IKE daemon."""

    socket: Path | None = None
    """Its control socket; left out: where Libreswan puts it."""


def _overlap(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _check_hosts(addresses: tuple[str, ...]) -> None:
    """Raise ValueError unless each is the address of one machine."""
    check_addresses(addresses)
    for address in map(ip_address, addresses):
        if address.is_unspecified or address.is_multicast:
            raise ValueError(f"{str(address)!r} is no machine's address")


class TargetConfig(Section, frozen=True, kw_only=True):
    """All of the file; paths are relative to it."""

    name: Name
    listen: LocalAddress
    port: Annotated[int, Meta(ge=1, le=65535)]
    directory: Path
    link: LinkSection
    tunnels: TunnelsSection
    suites: Annotated[tuple[SuiteName, ...], Meta(min_length=1)] = ALL_SUITES
    ipsec: IPsecSection = IPsecSection()
    strongswan: StrongSwanSection = StrongSwanSection()
    libreswan: LibreswanSection = LibreswanSection()
    observation: ObservationSection = ObservationSection()
    gate: GateSection | None = None
    """Left out: no tunnels without IPsec (Objective-ID 1) are granted."""

    def __post_init__(self) -> None:
        """Refuse a suite that is named twice."""
        check_once("suites", self.suites)

    @property
    def drivers(self) -> Choice:
        """Which driver is meant, and where its daemon is."""
        return Choice(
            self.ipsec.driver,
            {
                DriverName.STRONGSWAN: self.strongswan.socket,
                DriverName.LIBRESWAN: self.libreswan.socket,
            },
        )

    @property
    def database(self) -> Path:
        """The file of membership, access control list, tunnels and accounts."""
        return self.directory / "target.sqlite"

    @property
    def observers(self) -> Place:
        """Where the service is seen from outside."""
        return self.observation.place(Place(path=self.directory / "observers.sock"))

    @property
    def control_socket(self) -> Path:
        """Where the service takes orders of this machine's operator."""
        return self.directory / "control.sock"

    @property
    def lock(self) -> Path:
        """Whoever holds it, and nobody else, changes tunnels."""
        return self.directory / "lock"


def load(path: Path) -> TargetConfig:
    """Return the configuration; raises UsageError."""
    return load_config(path, TargetConfig, init="carnet-target init")

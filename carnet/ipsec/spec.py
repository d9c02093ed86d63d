"""One tunnel as every IPsec driver understands it."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_network

from carnet.canonical import check_addresses, check_networks
from carnet.errors import IPsecError
from carnet.ipsec.strongswan_algorithms import faults
from carnet.objectives import Objective

NAME_PREFIX = "carnet-"
"""Every tunnel of ours begins with it, and nothing else does: a sweep goes by it."""

SECRET_LENGTH = 32
"""Least octets of a PSK or PPK: a shorter PSK falls to an offline guess (RFC 7296 section 2.15)."""


class Role(StrEnum):
    """Which end of the tunnel this machine is; Client initiates IKE, Target responds."""

    CLIENT = "client"
    TARGET = "target"


class Mode(StrEnum):
    """IPsec mode (RFC 4301 section 3.2)."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"


def crosses_nat(objective: Objective, mode: Mode) -> bool:
    """Whether a tunnel may be had from behind NAT: only ESP in tunnel mode (RFC 3948).

    AH covers the addresses that NAT changes (RFC 4302 section 1). In transport mode, and
    without IPsec, the peer would take the address of the NAT, and so all who share it,
    for the Client.
    """
    return objective is Objective.ESP and mode is Mode.TUNNEL


def comes_back(objective: Objective, ike_version: int) -> bool:
    """Whether a tunnel that was lost can be negotiated anew with the secrets of its session.

    The kernel's policies that tie AH and ESP together hold the peer's address, and so does
    the gate for a session without IPsec: these need a new key pair. So does IKEv1.
    """
    return ike_version > 1 and objective in (Objective.ESP, Objective.AH)


@dataclass(frozen=True, kw_only=True)
class AhHalf:
    """Identities and keys of the connection that negotiates the AH half of AH and ESP.

    No IKE daemon negotiates the two as one, so each half is authenticated by itself.
    """

    local_identity: str
    remote_identity: str
    psk: bytes = field(repr=False)
    ppk: bytes | None = field(repr=False)
    ppk_id: str | None


@dataclass(frozen=True, kw_only=True)
class TunnelSpec:
    """What a driver needs to know to install one end of one tunnel.

    Proposals are written as strongSwan writes them ("aes256gcm16-prfsha256-x25519");
    other drivers translate. The secrets are left out of repr().

    Raises IPsecError if a part is not what it must be: what comes from another
    machine is checked here, once, before any daemon sees it.
    """

    name: str
    """Unique on this machine; always starts with NAME_PREFIX, so that a sweep finds it."""
    role: Role
    objective: Objective
    mode: Mode
    ike_version: int
    local_addresses: tuple[str, ...]
    """Empty: any address of this machine."""
    remote_addresses: tuple[str, ...]
    """Empty: any peer, as Target must expect of a traveller."""
    local_identity: str
    """IKE identity; of this session only."""
    remote_identity: str
    ike_proposals: tuple[str, ...]
    esp_proposals: tuple[str, ...]
    ah_proposals: tuple[str, ...]
    local_networks: tuple[str, ...]
    """Traffic selectors of this end, in CIDR notation; empty: its own (virtual) address.

    All inside a tunnel is of one IP version, which need not be the outer one.
    """
    remote_networks: tuple[str, ...]
    virtual_address: str | None
    """The Client's address inside the tunnel; None in transport mode, and only there."""
    psk: bytes = field(repr=False)
    ppk: bytes | None = field(repr=False)
    """Post-quantum pre-shared key (RFC 8784), required where there is one."""
    ppk_id: str | None
    force_udp: bool
    """UDP encapsulation (RFC 3948) even where no NAT is found."""
    lifetime: int
    """Seconds until the session ends; IPsec SAs rekey within it."""
    dead_peer_seconds: int = 30
    """Silence after which the peer is asked whether it is alive (RFC 7296 section 2.4)."""
    ah_half: AhHalf | None = None
    """For AH and ESP, where a driver carries them as two connections; else None."""
    allow_weak: bool = False
    """Whether the suites that no tunnel may be protected by are let through, for benchmarks."""

    def __post_init__(self) -> None:
        wrong = faults(ike=self.ike_proposals, esp=self.esp_proposals, ah=self.ah_proposals)
        for holds, what in (
            (_matches(_NAME, self.name), "name"),
            (_matches(_IDENTITY, self.local_identity, self.remote_identity), "IKE identities"),
            (self.local_identity != self.remote_identity, "IKE identities"),
            (_all_addresses(self.local_addresses + self.remote_addresses), "addresses"),
            (_matches(_PROPOSAL, *self.ike_proposals), "IKE proposals"),
            (_matches(_PROPOSAL, *self.esp_proposals, *self.ah_proposals), "IPsec proposals"),
            (not wrong, f"proposal ({', '.join(wrong)})"),
            (_all_networks(self.local_networks + self.remote_networks), "networks"),
            (_virtual_address_fits(self.mode, self.virtual_address), "virtual address"),
            (_one_ip_version(self), "mix of IP versions"),
            (len(self.psk) >= SECRET_LENGTH, "pre-shared key"),
            (_ppk_fits(self.ppk, self.ppk_id), "post-quantum pre-shared key"),
            (_half_fits(self.objective, self.ah_half), "second pair of IKE identities"),
            (self.lifetime > 0, "lifetime"),
            (self.dead_peer_seconds > 0, "dead-peer detection"),
        ):
            if not holds:
                raise IPsecError(
                    f"The tunnel cannot be set up because its {what} is not acceptable;"
                    " ask the operator of Target."
                )


_NAME = re.compile(re.escape(NAME_PREFIX) + r"[0-9A-Za-z-]{1,64}")
_IDENTITY = re.compile(r"[0-9A-Za-z][0-9A-Za-z.@_+-]{0,254}")
"""No wildcard, no prefix that changes its type: an identity names one peer."""
_PROPOSAL = re.compile(r"[0-9a-z_]+(-[0-9a-z_]+)*")


def _matches(pattern: re.Pattern[str], *values: str) -> bool:
    return all(pattern.fullmatch(value) for value in values)


def _all_addresses(addresses: tuple[str, ...]) -> bool:
    try:
        check_addresses(addresses)
    except ValueError:
        return False
    return True


def _all_networks(networks: tuple[str, ...]) -> bool:
    """Whether each is one in canonical form: daemons are told it as it is written."""
    try:
        check_networks(networks)
    except ValueError:
        return False
    return True


def _virtual_address_fits(mode: Mode, address: str | None) -> bool:
    if address is None or mode is Mode.TRANSPORT:
        return address is None and mode is Mode.TRANSPORT
    return _all_addresses((address,))


def _one_ip_version(spec: TunnelSpec) -> bool:
    """Whether all that is inside the tunnel is of one IP version, as far as it can be read."""
    if spec.virtual_address is None:
        return True
    networks, address = spec.local_networks + spec.remote_networks, spec.virtual_address
    if not _all_networks(networks) or not _all_addresses((address,)):
        return True
    return len({ip_network(each).version for each in (*networks, address)}) == 1


def _ppk_fits(ppk: bytes | None, ppk_id: str | None) -> bool:
    if ppk is None or ppk_id is None:
        return ppk is None and ppk_id is None
    return len(ppk) >= SECRET_LENGTH and _matches(_IDENTITY, ppk_id)


def _half_fits(objective: Objective, half: AhHalf | None) -> bool:
    if half is None:
        return True
    return (
        objective is Objective.AH_ESP
        and _matches(_IDENTITY, half.local_identity, half.remote_identity)
        and half.local_identity != half.remote_identity
        and len(half.psk) >= SECRET_LENGTH
        and _ppk_fits(half.ppk, half.ppk_id)
    )

"""The configuration file that `carnet-target init` writes."""

import json
from dataclasses import dataclass

from carnet.wire.suites import ALL_SUITES
from target_agent.proposals import PROFILES, Profile

_TEMPLATE = """\
# Carnet's Target: the gateway of the work network, where tunnels end.
# Paths are relative to this file.

# The name that users ask for; the certificate of the link carries it too.
name = {name}

# Where Hosts pass their users on, over mutually authenticated TLS 1.3.
listen = "0.0.0.0"
port = 8471

# Membership, access control list, tunnels and accounts.
directory = "/var/lib/carnet-target"

# Which suites may have signed a traveller's request: "p-256", "p-384", "rsa", "rsa-sha1".
# What her Host allows and this Target does not costs her a key pair, and is refused.
suites = {suites}

[link]
# Made by `carnet-provision certificates target NAME`.
certificate = "link.crt"
key = "link.key"
authority = "officer.crt"

[tunnels]
# The public addresses at which travellers' IKE finds this machine (UDP 500 and 4500), all of
# them: strongSwan tells them all, and a tunnel that moves to one not named here is ended.
addresses = {addresses}
# The networks behind it; only these can be granted.
networks = {networks}
# Travellers' addresses inside their tunnels are taken from here.
virtual_addresses = {virtual_addresses}
{virtual_addresses_v6}
# Name servers for Clients; and the MTU inside the tunnel, where ICMP may be lost on the way.
dns = []
# mtu = 1400
# Algorithms: "modern", or "cnsa" for P-384, AES-256 and SHA-384 alone.
profile = "modern"
# Or one by one, best first, as strongSwan writes them.
# ike_proposals = {ike_proposals}
# esp_proposals = {esp_proposals}
# ah_proposals = {ah_proposals}
# Refuse Clients whose IPsec cannot mix a post-quantum pre-shared key into IKE (RFC 8784).
require_ppk = true
# Serve Clients that have IKEv1 alone (FreeBSD's racoon, Windows); takes require_ppk = false,
# and one such traveller is let in after the other.
allow_ikev1 = false
# UDP encapsulation even where no NAT is found.
force_udp = false
# A traveller who was away (network gone, laptop asleep) for at most so many seconds comes
# back without a new key pair: her pre-shared key stays in the IKE daemon's memory until her
# session ends. 0: nobody comes back, and it is forgotten once the tunnel stands.
resume_within = 7200
# Silence in seconds after which a Client is asked whether she is alive.
dead_peer_seconds = 30
# A tunnel that nobody initiates within so many seconds is withdrawn.
initiate_within = 120
# What is for a traveller's address inside her tunnel leaves this machine with IPsec, or not at
# all: no rule of yours is needed for that. It takes nftables (or iptables, as root).
block = true

[ipsec]
# Which implementation carries the tunnels; left out: the one whose daemon is there
# when the service begins. It does not begin where several are, or none is of several.
# driver = "strongswan" or "libreswan"

[observation]
# Where /metrics (Prometheus), /healthz and /readyz are, for observers on this machine: a
# Unix socket, or an address and port. Nobody is asked who he is. "off": nowhere. Left
# out: observers.sock in `directory`.
# listen = "127.0.0.1:9471"
# The log: "json", one object a line, or "text".
# log = "json"

[strongswan]
# The VICI socket; left out: where strongSwan puts it.
# socket = "/run/charon.vici"

[libreswan]
# The control socket; left out: where Libreswan puts it. /etc/ipsec.secrets needs the line
#   include /run/pluto/carnet/*.secrets
# socket = "/run/pluto/pluto.ctl"

# Without this section nobody gets a tunnel without IPsec (objective native). With it,
# whatever comes in by these interfaces for the networks above is dropped, but for IPsec
# and for those who have such a session.
# [gate]
# outside = ["eth0"]
# Ports of this machine itself that are closed too.
# ports = []
# "iptables" for a kernel whose nftables know nothing of IP.
# firewall = "nft"
"""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the operator says of her Target."""

    name: str
    addresses: tuple[str, ...]
    networks: tuple[str, ...]
    virtual_addresses: str
    virtual_addresses_v6: str | None = None


def render(answers: Answers) -> str:
    """Return a commented configuration file."""
    proposed = PROFILES[Profile.MODERN]
    return _TEMPLATE.format(
        name=json.dumps(answers.name),
        suites=json.dumps(ALL_SUITES),
        addresses=json.dumps(answers.addresses),
        networks=json.dumps(answers.networks),
        virtual_addresses=json.dumps(answers.virtual_addresses),
        virtual_addresses_v6=_second_pool(answers.virtual_addresses_v6),
        ike_proposals=json.dumps(proposed.ike),
        esp_proposals=json.dumps(proposed.esp),
        ah_proposals=json.dumps(proposed.ah),
    )


def _second_pool(network: str | None) -> str:
    mark, shown = ("# ", "fd99::/64") if network is None else ("", network)
    return f"{mark}virtual_addresses_v6 = {json.dumps(shown)}"

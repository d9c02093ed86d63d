"""What Libreswan is told for one TunnelSpec: pure functions, no daemon.

The connection is one section of ipsec.conf(5), as FreeS/WAN had it; PSK and PPK
(RFC 8784) are two lines of ipsec.secrets(5).
"""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_network

from carnet.errors import IPsecError
from carnet.ipsec import libreswan_algorithms as algorithms
from carnet.ipsec.main_mode import expects_anybody
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_algorithms import weak_words
from carnet.objectives import Objective

MASK = "(hidden)"

IKE_LIFETIME = "4h"
CHILD_LIFETIME = "1h"
IKE_SECONDS = 16
"""Seconds for one IKE negotiation: retransmissions at 0.5, 1, 2, 4 and 8 s."""
RETRANSMIT_TIMEOUT = "10s"
"""Since it is looked at only when one is due, this is what makes it 16."""

IKE_VERSIONS = (2, 1)
"""IKEv1 has no PPK, and a wrong pre-shared key shows there only as silence."""

LONGEST_IKEV1 = 24 * 3600
"""Seconds for which one IKE SA may stand; in IKEv1 the next would need the key again."""
IKEV1_MARGIN = 1200
"""Seconds before which it is replaced at the latest: 540, and up to as many again."""

_HEAD = "# carnet "


@dataclass(frozen=True)
class Head:
    """What the first line of a tunnel's file tells of it to who comes after a crash."""

    role: Role
    virtual_address: str | None
    networks: tuple[str, ...]
    """Those of the other end, inside the tunnel."""
    targets: tuple[str, ...] = ()
    """The other end's addresses, as far as they are known."""
    identities: tuple[str, ...] = ()
    """Whom its keys are for."""


def head(spec: TunnelSpec) -> Head:
    """Return the head of a tunnel's file."""
    return Head(
        spec.role,
        spec.virtual_address,
        spec.remote_networks,
        spec.remote_addresses,
        tuple(filter(None, (spec.local_identity, spec.remote_identity, spec.ppk_id))),
    )


def head_of(text: str) -> Head | None:
    """Return what the head of a tunnel's file says; None if there is none, or it is damaged."""
    found = re.match(re.escape(_HEAD) + r"(\{.*\})\n", text)
    if found is None:
        return None
    with suppress(ValueError, LookupError, TypeError):
        facts = json.loads(found.group(1))
        return Head(
            Role(facts["role"]),
            facts["virtual_address"],
            tuple(facts["networks"]),
            tuple(facts.get("targets", ())),
            tuple(facts.get("identities", ())),
        )
    return None


def configuration(spec: TunnelSpec) -> str:
    """Return the tunnel's section of ipsec.conf, with a head of ours.

    Raises IPsecError if Libreswan cannot carry it.
    """
    refuse_what_cannot_be_carried(spec)
    settings = _common(spec) | _algorithms(spec) | _ends(spec)
    if spec.mode is Mode.TUNNEL:
        settings |= _inside(spec)
    lines = [f"    {key}={value}\n" for key, value in settings.items()]
    return f"{head_line(head(spec))}conn {spec.name}\n{''.join(lines)}"


def head_line(head: Head) -> str:
    """Return the first line of a tunnel's file."""
    return f"{_HEAD}{json.dumps(asdict(head))}\n"


def secrets(spec: TunnelSpec) -> str:
    """Return the tunnel's lines of ipsec.secrets."""
    ppk = None if spec.ppk is None else f"0x{spec.ppk.hex()}"
    return _secrets(spec, f"0x{spec.psk.hex()}", ppk)


def render(spec: TunnelSpec) -> str:
    """Return both, the secrets masked."""
    masked = _secrets(spec, MASK, None if spec.ppk is None else MASK)
    return f"{configuration(spec)}\n# ipsec.secrets\n{masked}"


def _secrets(spec: TunnelSpec, psk: str, ppk: str | None) -> str:
    ends = _owners(spec)
    lines = f"{ends} : PSK {psk}\n"
    return lines if ppk is None else lines + f'{ends} : PPKS "{spec.ppk_id}" {ppk}\n'


def _owners(spec: TunnelSpec) -> str:
    """Return for whom the keys are: in IKEv1 by address, since there is no name yet."""
    local, remote = identity(spec.local_identity), identity(spec.remote_identity)
    if spec.ike_version != 1:
        return f"{local} {remote}"
    if spec.role is Role.TARGET:
        # The last is no peer's: by it the key is known to have been read.
        return f"{spec.local_addresses[0]} %any {local}"
    return f"{local} {spec.remote_addresses[0]}"


def identity(name: str) -> str:
    """Return an identity in Libreswan's spelling: a name, unless it is a mail address."""
    return name if "@" in name else f"@{name}"


def _common(spec: TunnelSpec) -> dict[str, str]:
    return {
        "auto": "add",
        "authby": "secret",
        "type": str(spec.mode),
        "ppk": "insist" if spec.ppk is not None else "no",
        "salifetime": CHILD_LIFETIME,
        # Whether a lost tunnel comes back is for the agent to say, with a fresh key.
        "keyingtries": "1",
        "retransmit-timeout": RETRANSMIT_TIMEOUT,
        "dpdaction": "clear",
        "dpddelay": f"{spec.dead_peer_seconds}s",
        "encapsulation": "yes" if spec.force_udp else "auto",
        "mobike": "no",
        # Address and route inside the tunnel are ours to set.
        "leftupdown": "%disabled",
    } | (_IKEV1 if spec.ike_version == 1 else _IKEV2)


_IKEV2 = {"ikev2": "insist", "ikelifetime": IKE_LIFETIME}
_IKEV1 = {
    "ikev2": "no",
    "ikelifetime": f"{LONGEST_IKEV1}s",
    # Without it nobody asks whether the peer lives; as long as strongSwan waits.
    "dpdtimeout": "165s",
}


def _algorithms(spec: TunnelSpec) -> dict[str, str]:
    settings = {"ike": algorithms.ike(spec.ike_proposals)}
    if spec.objective is Objective.AH:
        settings |= {"phase2": "ah", "ah": algorithms.ah(spec.ah_proposals)}
    else:
        settings |= {"phase2": "esp", "esp": algorithms.esp(spec.esp_proposals)}
    proposals = spec.esp_proposals + spec.ah_proposals
    return settings | {"pfs": algorithms.pfs(proposals), "esn": algorithms.esn(proposals)}


def _ends(spec: TunnelSpec) -> dict[str, str]:
    local, remote = spec.local_addresses, spec.remote_addresses
    ends = {
        "left": local[0] if local else "%defaultroute",
        "leftid": identity(spec.local_identity),
        "right": remote[0] if remote else "%any",
        "rightid": identity(spec.remote_identity),
    }
    if expects_anybody(spec):
        return ends | {"leftid": local[0], "rightid": "%any"}
    return ends | ({"rightid": remote[0]} if spec.ike_version == 1 else {})


def _inside(spec: TunnelSpec) -> dict[str, str]:
    """Client asks for its address inside the tunnel; Target has just that one to give.

    In IKEv1 the Client sets it herself: Mode Config with strongSwan comes to no end.
    """
    address = spec.virtual_address or ""
    if spec.ike_version == 1:
        here = spec.local_networks or (str(ip_network(address)),)
        there = spec.remote_networks or (str(ip_network(address)),)
        return {"leftsubnet": here[0], "rightsubnet": there[0]}
    if spec.role is Role.TARGET:
        return {
            "leftsubnet": spec.local_networks[0],
            "leftmodecfgserver": "yes",
            "rightmodecfgclient": "yes",
            "rightaddresspool": f"{address}/128" if ":" in address else f"{address}-{address}",
        }
    return {
        "leftmodecfgclient": "yes",
        "rightmodecfgserver": "yes",
        # Whichever address Target gives; which it was is looked at once it is up.
        "leftsubnet": "::/0" if ":" in address else "0.0.0.0/0",
        "narrowing": "yes",
        "rightsubnet": spec.remote_networks[0],
    }


def refuse_what_cannot_be_carried(spec: TunnelSpec) -> None:
    """Raise IPsecError for what no Libreswan carries, or not as it was agreed."""
    weak = (
        ()
        if spec.allow_weak
        else weak_words(spec.ike_proposals + spec.esp_proposals + spec.ah_proposals)
    )
    networks = spec.local_networks if spec.role is Role.TARGET else spec.remote_networks
    due = (spec.objective is Objective.ESP, spec.objective is Objective.AH)
    tunnel = spec.mode is Mode.TUNNEL
    client = spec.role is Role.CLIENT
    old = spec.ike_version == 1
    for refused, what in (
        (spec.objective is Objective.NATIVE, "a session without IPsec (it knows no RFC 6023)"),
        (
            spec.objective is Objective.AH_ESP,
            "AH and ESP together (it lets no SA be without policies of its own)",
        ),
        (spec.ike_version not in IKE_VERSIONS, f"IKEv{spec.ike_version}"),
        ((bool(spec.esp_proposals), bool(spec.ah_proposals)) != due, "such proposals"),
        (not spec.ike_proposals, "a tunnel without proposals"),
        (old and spec.ppk is not None, "a post-quantum key with IKEv1"),
        (old and spec.lifetime > LONGEST_IKEV1 - IKEV1_MARGIN, "such a long session with IKEv1"),
        (bool(weak), f"the weak algorithms {', '.join(weak)}"),
        (tunnel and len(networks) != 1, "a tunnel to other than one network"),
        (tunnel and _versions(spec) > 1, "one IP version inside another"),
        (not client and len(spec.local_addresses) != 1, "a Target at several addresses"),
        (client and not spec.remote_addresses, "a Client that knows no Target"),
    ):
        if refused:
            raise cannot_carry(what)
    try:
        _algorithms(spec)
    except algorithms.UnknownProposalError as error:
        raise cannot_carry(f"the algorithms {error}") from error


def _versions(spec: TunnelSpec) -> int:
    """Return of how many IP versions the addresses inside and outside are."""
    outer = (spec.local_addresses or spec.remote_addresses)[:1]
    return len({":" in address for address in (*outer, spec.virtual_address or "")})


def cannot_carry(what: str) -> IPsecError:
    """Return the error for what is refused."""
    return IPsecError(
        f"The Libreswan driver cannot carry {what} and nothing is downgraded;"
        " choose another objective or driver."
    )

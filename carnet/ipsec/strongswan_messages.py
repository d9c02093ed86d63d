"""What strongSwan is told over VICI for one TunnelSpec: pure functions, no daemon.

The messages are those of strongSwan's README for the vici plugin; their keys mean
what swanctl.conf(5) says.
"""

from ipaddress import ip_network
from typing import Any

from carnet.ipsec.bundle import HALVES_MARK
from carnet.ipsec.main_mode import expects_anybody
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_parts import AH_HALF, Part, parts
from carnet.objectives import Objective

Message = dict[str, Any]

IKE_REKEY_TIME = "4h"
CHILD_REKEY_TIME = "1h"
IKEV1_LIFETIME = "24h"
"""The longest that Libreswan lets an IKE SA live."""

MASK = "(hidden)"

_PPK_SUFFIX = "/ppk"
"""No tunnel's name has a slash in it."""

_NOBODYS_MARK = "0x0/0x80000000"
"""All packets but those that somebody has marked with the highest bit.

It tells the daemon's policies between two hosts from ours for AH and ESP between the same
two (carnet.ipsec.bundle): it deletes by selector and mark, and with its own would delete
ours, so that the packets passed in clear.
"""

_ANY = ["%any"]
_YES_NO = {True: "yes", False: "no"}


def key_ids(name: str) -> tuple[str, ...]:
    """Return under which ids a tunnel's PSKs and PPKs may be loaded."""
    connections = (name, name + AH_HALF)
    return tuple(each + suffix for each in connections for suffix in ("", _PPK_SUFFIX))


def ppk_key_id(name: str) -> str:
    """Return under which id the PPK of a tunnel that is one connection is loaded."""
    return name + _PPK_SUFFIX


def shared_keys(spec: TunnelSpec) -> list[Message]:
    """Return the load-shared messages: the PSK and, where there is one, the PPK (RFC 8784)."""
    keys: list[Message] = []
    for part in parts(spec):
        key_id = spec.name + AH_HALF if part.name.endswith(AH_HALF) else spec.name
        owners = list(_owners(spec, part))
        keys.append({"id": key_id, "type": "IKE", "data": part.psk, "owners": owners})
        if part.ppk is not None:
            ppk_id = key_id + _PPK_SUFFIX
            keys.append({"id": ppk_id, "type": "ppk", "data": part.ppk, "owners": [part.ppk_id]})
    return keys


def sets_its_address(spec: TunnelSpec) -> bool:
    """Whether the Client sets her address inside by herself, since nobody gives it to her.

    In IKEv1, where Libreswan's Mode Config and strongSwan's do not come to an end.
    """
    client = spec.role is Role.CLIENT
    return client and spec.ike_version == 1 and spec.virtual_address is not None


def _owners(spec: TunnelSpec, part: Part) -> tuple[str, ...]:
    """Return for whom a key is: in IKEv1 for Target's addresses, since there is no name yet."""
    if spec.ike_version != 1:
        return part.local_identity, part.remote_identity
    return spec.local_addresses if spec.role is Role.TARGET else spec.remote_addresses


def pool(spec: TunnelSpec) -> Message | None:
    """Return Target's load-pool message: one address, for this one traveller."""
    if spec.role is not Role.TARGET or spec.virtual_address is None:
        return None
    return {spec.name: {"addrs": spec.virtual_address}}


def connections(spec: TunnelSpec) -> list[Message]:
    """Return the load-conn messages: each one IKE_SA with at most one CHILD_SA, of one name."""
    return [{part.name: _connection(spec, part)} for part in parts(spec)]


def _connection(spec: TunnelSpec, part: Part) -> Message:
    settings: Message = {
        "version": str(spec.ike_version),
        "local_addrs": list(spec.local_addresses) or _ANY,
        "remote_addrs": list(spec.remote_addresses) or _ANY,
        "proposals": list(spec.ike_proposals),
        "local": {"auth": "psk", "id": _itself(spec, part)},
        "remote": {"auth": "psk", "id": _peer(spec, part)},
        "mobike": _YES_NO[_may_move(spec)],
        "fragmentation": "yes",
        "encap": _YES_NO[spec.force_udp],
        "dpd_delay": f"{spec.dead_peer_seconds}s",
        **_ike_lifetime(spec),
        # The pre-shared key may be forgotten by then: there is nothing to authenticate with.
        "reauth_time": "0",
        "send_certreq": "no",
    }
    if part.protocol:
        settings["children"] = {part.name: _child(spec, part) | _inner_address(spec)}
    else:
        settings["childless"] = "force"
    return settings | _ppk(part) | _virtual_address(spec, part)


def _ike_lifetime(spec: TunnelSpec) -> Message:
    """IKEv1 renews an IKE SA by authenticating anew, and tells the peer how long it lives.

    Alone, `over_time` is only told: without it the peer is told none, and Libreswan
    replaces the IKE SA at once and for ever.
    """
    if spec.ike_version == 1:
        return {"rekey_time": "0", "over_time": IKEV1_LIFETIME}
    return {"rekey_time": IKE_REKEY_TIME}


def _itself(spec: TunnelSpec, part: Part) -> str:
    """Return the end's own name: in IKEv1 Target's is its address, as racoon insists."""
    return "%any" if expects_anybody(spec) else part.local_identity


def _peer(spec: TunnelSpec, part: Part) -> str:
    """Return the peer's name; what it was in IKEv1 is looked at when it stands."""
    return "%any" if spec.ike_version == 1 else part.remote_identity


def _inner_address(spec: TunnelSpec) -> Message:
    """Return the selector of a Client that sets her virtual address herself, as IKEv1's may."""
    if spec.ike_version != 1 or spec.virtual_address is None:
        return {}
    selector = "remote_ts" if spec.role is Role.TARGET else "local_ts"
    return {selector: [str(ip_network(spec.virtual_address))]}


def _may_move(spec: TunnelSpec) -> bool:
    """Whether MOBIKE may move the tunnel to another address: RFC 4555 knows tunnel mode only.

    With AH and ESP the kernel's policies hold the addresses, and are ours.
    """
    moves = spec.mode is Mode.TUNNEL and spec.objective is not Objective.AH_ESP
    return moves and spec.ike_version != 1


def _ppk(part: Part) -> Message:
    if part.ppk_id is None:
        return {}
    return {"ppk_id": part.ppk_id, "ppk_required": "yes"}


def _virtual_address(spec: TunnelSpec, part: Part) -> Message:
    """Client asks for its address inside the tunnel; Target has just that one to give."""
    if not part.takes_address or sets_its_address(spec):
        return {}
    if spec.role is Role.TARGET:
        return {"pools": [spec.name]}
    return {"vips": [spec.virtual_address]}


def _child(spec: TunnelSpec, part: Part) -> Message:
    child: Message = {
        "mode": part.mode,
        f"{part.protocol.lower()}_proposals": list(part.proposals),
        "rekey_time": CHILD_REKEY_TIME,
        # Whether a lost tunnel comes back is for the agent to say, with a fresh key.
        "start_action": "none",
        "close_action": "none",
        "dpd_action": "none",
    }
    if part.local_selectors:
        child["local_ts"] = list(part.local_selectors)
    if part.remote_selectors:
        child["remote_ts"] = list(part.remote_selectors)
    if part.reqid is not None:
        child["reqid"] = str(part.reqid)
    if part.tied:
        child["policies"] = "no"
        if spec.role is Role.TARGET:
            child["set_mark_in"] = f"{HALVES_MARK:#x}/{HALVES_MARK:#x}"
    elif part.mode == Mode.TRANSPORT:
        child |= {"mark_in": _NOBODYS_MARK, "mark_out": _NOBODYS_MARK}
    return child


def render(spec: TunnelSpec) -> str:
    """Return all that would be loaded, as swanctl.conf(5) has it, secrets masked."""
    loaded: Message = {"connections": {}}
    for each in connections(spec):
        loaded["connections"] |= each
    addresses = pool(spec)
    if addresses is not None:
        loaded["pools"] = addresses
    loaded["secrets"] = dict(map(_masked, shared_keys(spec)))
    return "".join(_lines(loaded, ""))


def _masked(key: Message) -> tuple[str, Message]:
    """Return a secret's section: its name begins with its type, and it has an id for each owner."""
    owners = {f"id-{number}": owner for number, owner in enumerate(key["owners"], 1)}
    return f"{key['type'].lower()}-{key['id']}", owners | {"secret": MASK}


def _lines(section: Message, indent: str) -> list[str]:
    lines = []
    for key, value in section.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key} {{\n", *_lines(value, indent + "    "), f"{indent}}}\n"]
        else:
            shown = ", ".join(value) if isinstance(value, list) else value
            lines.append(f"{indent}{key} = {shown}\n")
    return lines

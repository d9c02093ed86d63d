"""What strongSwan is told over VICI for one TunnelSpec: pure functions, no daemon.

The messages are those of strongSwan's README for the vici plugin; their keys mean
what swanctl.conf(5) says.
"""

from typing import Any

from carnet.ipsec.spec import NAME_PREFIX, Role, TunnelSpec

Message = dict[str, Any]

IKE_REKEY_TIME = "4h"
CHILD_REKEY_TIME = "1h"
DPD_DELAY = "30s"
"""Silence after which the peer is asked whether it is alive (RFC 7296 section 2.4)."""

MASK = "(hidden)"

_PPK_SUFFIX = "/ppk"
"""No tunnel's name has a slash in it."""

_ANY = ["%any"]
_YES_NO = {True: "yes", False: "no"}


def key_ids(name: str) -> tuple[str, str]:
    """Return under which ids a tunnel's PSK and PPK are loaded."""
    return name, name + _PPK_SUFFIX


def tunnel_of_key(key_id: str) -> str:
    """Return the name of the tunnel that a shared key was loaded for."""
    return key_id.removesuffix(_PPK_SUFFIX)


def is_ours(name: str) -> bool:
    """Whether a connection, pool or key was loaded by Carnet."""
    return name.startswith(NAME_PREFIX)


def shared_keys(spec: TunnelSpec) -> list[Message]:
    """Return the load-shared messages: the PSK and, where there is one, the PPK (RFC 8784)."""
    psk_id, ppk_id = key_ids(spec.name)
    owners = [spec.local_identity, spec.remote_identity]
    keys: list[Message] = [{"id": psk_id, "type": "IKE", "data": spec.psk, "owners": owners}]
    if spec.ppk is not None:
        keys.append({"id": ppk_id, "type": "ppk", "data": spec.ppk, "owners": [spec.ppk_id]})
    return keys


def pool(spec: TunnelSpec) -> Message | None:
    """Return Target's load-pool message: one address, for this one traveller."""
    if spec.role is not Role.TARGET:
        return None
    return {spec.name: {"addrs": spec.virtual_address}}


def connection(spec: TunnelSpec) -> Message:
    """Return the load-conn message: one IKE_SA with one CHILD_SA, both of the tunnel's name."""
    settings: Message = {
        "version": str(spec.ike_version),
        "local_addrs": list(spec.local_addresses) or _ANY,
        "remote_addrs": list(spec.remote_addresses) or _ANY,
        "proposals": list(spec.ike_proposals),
        "local": {"auth": "psk", "id": spec.local_identity},
        "remote": {"auth": "psk", "id": spec.remote_identity},
        "mobike": "yes",
        "fragmentation": "yes",
        "encap": _YES_NO[spec.force_udp],
        "dpd_delay": DPD_DELAY,
        "rekey_time": IKE_REKEY_TIME,
        # The pre-shared key is forgotten once the SA is up: there is nothing to authenticate with.
        "reauth_time": "0",
        "send_certreq": "no",
        "children": {spec.name: _child(spec)},
    }
    return {spec.name: settings | _ppk(spec) | _virtual_address(spec)}


def _ppk(spec: TunnelSpec) -> Message:
    if spec.ppk_id is None:
        return {}
    return {"ppk_id": spec.ppk_id, "ppk_required": "yes"}


def _virtual_address(spec: TunnelSpec) -> Message:
    """Client asks for its address inside the tunnel; Target has just that one to give."""
    if spec.role is Role.TARGET:
        return {"pools": [spec.name]}
    return {"vips": [spec.virtual_address]}


def _child(spec: TunnelSpec) -> Message:
    child: Message = {
        "mode": spec.mode.value,
        "esp_proposals": list(spec.esp_proposals),
        "rekey_time": CHILD_REKEY_TIME,
        # Whether a lost tunnel comes back is for the agent to say, with a fresh key.
        "start_action": "none",
        "close_action": "none",
        "dpd_action": "none",
    }
    if spec.local_networks:
        child["local_ts"] = list(spec.local_networks)
    if spec.remote_networks:
        child["remote_ts"] = list(spec.remote_networks)
    return child


def render(spec: TunnelSpec) -> str:
    """Return all that would be loaded, in the manner of swanctl.conf, secrets masked."""
    loaded: Message = {"connections": connection(spec)}
    addresses = pool(spec)
    if addresses is not None:
        loaded["pools"] = addresses
    loaded["secrets"] = {key["id"]: key | {"data": MASK} for key in shared_keys(spec)}
    return "".join(_lines(loaded, ""))


def _lines(section: Message, indent: str) -> list[str]:
    lines = []
    for key, value in section.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key} {{\n", *_lines(value, indent + "    "), f"{indent}}}\n"]
        else:
            shown = ", ".join(value) if isinstance(value, list) else value
            lines.append(f"{indent}{key} = {shown}\n")
    return lines

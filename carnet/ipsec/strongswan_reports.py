"""What strongSwan reports over VICI, read and judged: pure functions, no daemon."""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from carnet.errors import IKERefusedError, IKESilentError, IPsecError
from carnet.ipsec.driver import Change, TunnelEvent, TunnelStatus
from carnet.ipsec.spec import Role, TunnelSpec
from carnet.ipsec.strongswan_algorithms import is_proposed, suite
from carnet.ipsec.strongswan_messages import is_ours

Report = Mapping[str, Any]

_LIVE_IKE = ("ESTABLISHED", "REKEYING")
_HANDING_OVER = {"REKEYED", "REKEYING"}
_LIVE_CHILD = ("INSTALLED", "REKEYING")


def is_live(ike_sa: Report) -> bool:
    """Whether the IKE_SA stands, as against one that is being made or deleted."""
    return ike_sa.get("state") in _LIVE_IKE


def is_handing_over(sas: Iterable[tuple[str, Report]]) -> bool:
    """Whether a rekeyed IKE_SA has not yet handed its CHILD_SAs to its successor.

    For some milliseconds the daemon then lists only the old one, without children.
    """
    states: dict[str, set[str]] = {}
    for name, ike_sa in sas:
        whole = is_live(ike_sa) and live_child(ike_sa) is not None
        states.setdefault(name, set()).add("whole" if whole else ike_sa["state"])
    return any("whole" not in each and each & _HANDING_OVER for each in states.values())


def live_child(ike_sa: Report) -> Report | None:
    """Return the CHILD_SA that carries packets now; rekeyed ones linger beside it."""
    children = [c for c in ike_sa["child-sas"].values() if c["state"] in _LIVE_CHILD]
    return children[-1] if children else None


def status(name: str, ike_sa: Report) -> TunnelStatus:
    """Return a tunnel's status from its list-sa report."""
    child: Report = live_child(ike_sa) or {}
    children = ike_sa["child-sas"].values()
    return TunnelStatus(
        name=name,
        # Who asked for a virtual address has it; who gave it reports it as the peer's.
        role=Role.CLIENT if ike_sa.get("local-vips") else Role.TARGET,
        established=is_live(ike_sa) and bool(child),
        local_address=ike_sa["local-host"],
        remote_address=ike_sa["remote-host"],
        virtual_address=next(iter(_virtual_addresses(ike_sa)), None),
        ike_suite="-".join(suite(ike_sa)),
        child_suite=f"{child.get('protocol', '')} {'-'.join(suite(child))}".strip(),
        encapsulated=child.get("encap") == "yes",
        ppk=ike_sa.get("ppk") == "yes",
        bytes_in=sum(int(each["bytes-in"]) for each in children),
        bytes_out=sum(int(each["bytes-out"]) for each in children),
        established_seconds=int(ike_sa.get("established", 0)),
    )


def _virtual_addresses(ike_sa: Report) -> list[str]:
    return [*ike_sa.get("local-vips", []), *ike_sa.get("remote-vips", [])]


def shortfalls(spec: TunnelSpec, ike_sa: Report) -> list[str]:
    """Return in what a tunnel is less than agreed, each as half a sentence; empty if in nothing."""
    child = live_child(ike_sa)
    if child is None or not is_live(ike_sa):
        return ["it is not established"]
    checks = {
        "it is not IKEv2": ike_sa.get("version") == str(spec.ike_version),
        "it is not between the two identities": _identities_fit(spec, ike_sa),
        "its IKE algorithms were not proposed": is_proposed(suite(ike_sa), spec.ike_proposals),
        "it has no post-quantum key": spec.ppk is None or ike_sa.get("ppk") == "yes",
        "it is not ESP": child.get("protocol") == "ESP",
        "its ESP algorithms were not proposed": is_proposed(suite(child), spec.esp_proposals),
        "its mode is another": child.get("mode", "").lower() == spec.mode,
        "its virtual address is another": _virtual_addresses(ike_sa) == [spec.virtual_address],
        "its networks are others": _selectors_fit(spec, child),
    }
    return [shortfall for shortfall, holds in checks.items() if not holds]


def _identities_fit(spec: TunnelSpec, ike_sa: Report) -> bool:
    identities = (ike_sa.get("local-id"), ike_sa.get("remote-id"))
    return identities == (spec.local_identity, spec.remote_identity)


def _selectors_fit(spec: TunnelSpec, child: Report) -> bool:
    """Whether the traffic selectors were not narrowed (RFC 7296 section 2.9)."""
    inside = (spec.virtual_address,) if spec.virtual_address else ()
    local, remote = spec.local_networks, spec.remote_networks
    if spec.role is Role.CLIENT:
        local = local or inside
    else:
        remote = remote or inside
    return _networks(child["local-ts"]) >= _networks(local) and (
        _networks(child["remote-ts"]) >= _networks(remote)
    )


def _networks(selectors: Iterable[str]) -> set[str]:
    """Return selectors in one spelling; one with protocol or port stays as it is, unequal."""
    return {s if "[" in s or "|" in s else str(ip_network(s)) for s in selectors}


def event(message: Report) -> TunnelEvent | None:
    """Return what a child-updown event says of a tunnel of ours; None if it is not ours."""
    for name, sa in message.items():
        if isinstance(sa, Mapping) and is_ours(name):
            return TunnelEvent(name, Change.UP if message.get("up") == "yes" else Change.DOWN)
    return None


def rekeyed(message: Report, name: str) -> bool:
    """Whether an ike-rekey event is about that tunnel."""
    return name in message


def not_up(log: Iterable[str]) -> IPsecError:
    """Return the error for an IKE negotiation that failed, from the daemon's log of it."""
    lines = list(log)
    if not any("received packet" in line for line in lines):
        return IKESilentError(_NO_ANSWER)
    return IKERefusedError(_why_not_up("\n".join(lines)))


def _why_not_up(whole: str) -> str:
    for pattern, sentence in _FAILURES:
        if re.search(pattern, whole):
            return sentence
    notify = re.search(r"received (\w+) (?:error )?notify", whole)
    if notify:
        return f"Target refuses the tunnel ({notify.group(1)}); ask its operator."
    return "The IKE negotiation failed for a reason that only strongSwan's log tells; look there."


_NOT_AUTHENTICATED = (
    "Target and this machine do not authenticate each other (AUTHENTICATION_FAILED):"
    " the keys of the two ends differ; connect again for fresh ones."
)
_NO_PROPOSAL = (
    "Target accepts none of the proposed algorithms, or knows no such tunnel"
    " (NO_PROPOSAL_CHOSEN); connect again, and ask its operator if that does not help."
)
_NO_ANSWER = (
    "Target does not answer IKE on UDP ports 500 and 4500;"
    " check that this network lets them through, and try again."
)

_FAILURES = (
    (r"AUTHENTICATION_FAILED|MAC mismatched|N\(AUTH_FAILED\)", _NOT_AUTHENTICATED),
    (r"NO_PROPOSAL_CHOSEN|N\(NO_PROP\)", _NO_PROPOSAL),
    (r"PPK required", _NOT_AUTHENTICATED),
)

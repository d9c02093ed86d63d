"""What strongSwan reports of a tunnel, held against what was agreed."""

from collections.abc import Mapping

from carnet.ipsec.agreed import has_all_of
from carnet.ipsec.spec import Role, TunnelSpec, crosses_nat
from carnet.ipsec.strongswan_algorithms import is_proposed, suite
from carnet.ipsec.strongswan_parts import Part, parts
from carnet.ipsec.strongswan_reports import Report, is_up, live_children, virtual_addresses


def missing_parts(spec: TunnelSpec, sas: Mapping[str, Report]) -> list[Part]:
    """Return the parts agreed that do not stand."""
    return [part for part in parts(spec) if not is_up(part.name, sas.get(part.name, {}))]


def shortfalls(spec: TunnelSpec, sas: Mapping[str, Report]) -> list[str]:
    """Return in what a tunnel is less than agreed, each as half a sentence; empty if in nothing.

    `sas` are the newest IKE_SAs of its parts, by connection name.
    """
    agreed, missing = parts(spec), missing_parts(spec, sas)
    if len(missing) == len(agreed):
        return ["it is not established"]
    if missing:
        return [f"its {part.protocol} half is not established" for part in missing]
    found = [shortfall for part in agreed for shortfall in _lacks(spec, part, sas[part.name])]
    return list(dict.fromkeys(found))


def _lacks(spec: TunnelSpec, part: Part, ike_sa: Report) -> list[str]:
    addresses = [spec.virtual_address] if part.takes_address else []
    # A Client with IKEv1 may set it herself; its selector is compared below.
    allowed = (addresses, []) if spec.ike_version == 1 else (addresses,)
    checks = {
        f"it is not IKEv{spec.ike_version}": ike_sa.get("version") == str(spec.ike_version),
        "it is not between the two identities": _identities_fit(spec, part, ike_sa),
        "its IKE algorithms were not proposed": is_proposed(suite(ike_sa), spec.ike_proposals),
        "it has no post-quantum key": part.ppk is None or ike_sa.get("ppk") == "yes",
        "there is NAT on the way, which it does not survive": (
            crosses_nat(spec.objective, spec.mode) or not _is_behind_nat(ike_sa)
        ),
        "its virtual address is another": virtual_addresses(ike_sa) in allowed,
    }
    found = [shortfall for shortfall, holds in checks.items() if not holds]
    children = live_children(ike_sa) if part.protocol else []
    return found + [each for child in children for each in _child_lacks(spec, part, ike_sa, child)]


def _child_lacks(spec: TunnelSpec, part: Part, ike_sa: Report, child: Report) -> list[str]:
    protocol = part.protocol
    checks = {
        f"it is not {protocol}": child.get("protocol") == protocol,
        f"its {protocol} algorithms were not proposed": is_proposed(suite(child), part.proposals),
        "its mode is another": child.get("mode", "").lower() == part.mode,
        "its networks are others": _selectors_fit(spec, part, ike_sa, child),
        "its halves are not tied together": (
            not part.tied or part.reqid == int(child.get("reqid", 0))
        ),
    }
    return [shortfall for shortfall, holds in checks.items() if not holds]


def _identities_fit(spec: TunnelSpec, part: Part, ike_sa: Report) -> bool:
    if spec.ike_version == 1:
        target = "local" if spec.role is Role.TARGET else "remote"
        return bool(ike_sa.get(f"{target}-id") == ike_sa.get(f"{target}-host"))
    identities = (ike_sa.get("local-id"), ike_sa.get("remote-id"))
    return identities == (part.local_identity, part.remote_identity)


def _is_behind_nat(ike_sa: Report) -> bool:
    return any(ike_sa.get(f"nat-{end}") == "yes" for end in ("local", "remote", "any"))


def _selectors_fit(spec: TunnelSpec, part: Part, ike_sa: Report, child: Report) -> bool:
    """Whether the traffic selectors were not narrowed (RFC 7296 section 2.9)."""
    inside = (spec.virtual_address,) if spec.virtual_address else ()
    local, remote = part.local_selectors, part.remote_selectors
    if spec.virtual_address is None or not (part.takes_address or local):
        local, remote = (ike_sa["local-host"],), (ike_sa["remote-host"],)
    elif spec.role is Role.CLIENT:
        local = local or inside
    else:
        remote = remote or inside
    return has_all_of(child["local-ts"], local) and has_all_of(child["remote-ts"], remote)

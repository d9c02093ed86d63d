"""From Tunneling Info to the TunnelSpec of either end."""

import msgspec

from carnet.ipsec.spec import NAME_PREFIX, AhHalf, Mode, Role, TunnelSpec
from carnet.objectives import Objective
from carnet.wire.messages import TunnelingInfo
from carnet.wire.session_key import SessionSecrets


class _End(msgspec.Struct, frozen=True):
    addresses: tuple[str, ...]
    identity: str
    networks: tuple[str, ...]


def tunnel_name(request_id: bytes) -> str:
    """Return the name under which both ends know a tunnel."""
    return NAME_PREFIX + request_id.hex()


def tunnel_spec(
    role: Role,
    request_id: bytes,
    info: TunnelingInfo,
    secrets: SessionSecrets,
    lifetime: int,
    *,
    allow_weak: bool = False,
    dead_peer_seconds: int = 30,
) -> TunnelSpec:
    """Return one end of a tunnel: Target's (step 5) or the Client's (step 9).

    `lifetime` is in seconds; `allow_weak` lets suites through that are for benchmarks
    only. Target expects its peer at any address.
    """
    client = _End((), info.client_identity, ())
    target = _End(info.target_addresses, info.target_identity, info.networks)
    here, there = (client, target) if role is Role.CLIENT else (target, client)
    return TunnelSpec(
        name=tunnel_name(request_id),
        role=role,
        objective=Objective(info.objective_id),
        mode=Mode(info.mode),
        ike_version=info.ike_version,
        local_addresses=here.addresses,
        remote_addresses=there.addresses,
        local_identity=here.identity,
        remote_identity=there.identity,
        ike_proposals=info.ike_proposals,
        esp_proposals=info.esp_proposals,
        ah_proposals=info.ah_proposals,
        local_networks=here.networks,
        remote_networks=there.networks,
        virtual_address=info.virtual_address,
        psk=secrets.psk,
        ppk=secrets.ppk if info.ppk_id else None,
        ppk_id=info.ppk_id,
        force_udp=info.force_udp,
        lifetime=lifetime,
        dead_peer_seconds=dead_peer_seconds,
        ah_half=_ah_half(info, secrets, here.identity, there.identity),
        allow_weak=allow_weak,
    )


AH_PREFIX = "ah-"
"""What makes an identity of Tunneling Info that of the connection which negotiates AH."""


def _ah_half(info: TunnelingInfo, secrets: SessionSecrets, here: str, there: str) -> AhHalf | None:
    if Objective(info.objective_id) is not Objective.AH_ESP:
        return None
    return AhHalf(
        local_identity=AH_PREFIX + here,
        remote_identity=AH_PREFIX + there,
        psk=secrets.ah_psk,
        ppk=secrets.ah_ppk if info.ppk_id else None,
        ppk_id=AH_PREFIX + info.ppk_id if info.ppk_id else None,
    )

"""From Tunneling Info to the TunnelSpec of either end."""

from dataclasses import dataclass

from carnet.ipsec.spec import NAME_PREFIX, Mode, Role, TunnelSpec
from carnet.objectives import Objective
from carnet.wire.messages import TunnelingInfo
from carnet.wire.session_key import SessionSecrets


@dataclass(frozen=True)
class _End:
    addresses: tuple[str, ...]
    identity: str
    networks: tuple[str, ...]


def tunnel_name(request_id: bytes) -> str:
    """Return the name under which both ends know a tunnel."""
    return NAME_PREFIX + request_id.hex()


def tunnel_spec(
    role: Role, request_id: bytes, info: TunnelingInfo, secrets: SessionSecrets, lifetime: int
) -> TunnelSpec:
    """Return one end of a tunnel: Target's (step 5) or the Client's (step 9).

    `lifetime` is in seconds. Target expects its peer at any address.
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
    )

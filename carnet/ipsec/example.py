"""A tunnel to show: what a dry run gives a driver to render, before Target is asked.

Its addresses are those that documents use (RFC 5737, RFC 3849); its secrets are none.
"""

from dataclasses import replace

from carnet.ipsec.spec import SECRET_LENGTH, AhHalf, Mode, Role, TunnelSpec
from carnet.objectives import Objective

TARGET_ADDRESS = "192.0.2.1"
NETWORK = "198.51.100.0/24"
VIRTUAL_ADDRESS = {4: "203.0.113.7", 6: "2001:db8::7"}

_NO_SECRET = bytes(SECRET_LENGTH)

_IKE = {1: ("aes256-sha256-modp2048",), 2: ("aes256gcm16-prfsha384-x25519",)}
_ESP = {1: ("aes256-sha256-modp2048",), 2: ("aes256gcm16-x25519",)}
_AH = {1: ("sha256-modp2048",), 2: ("sha256-x25519",)}
"""By IKE version; AEAD in IKEv1 is not for every implementation."""


def example_spec(
    objective: Objective,
    mode: Mode,
    networks: tuple[str, ...],
    *,
    ike_version: int = 2,
    ppk: bool = True,
) -> TunnelSpec:
    """Return the Client's end of such a tunnel; `networks` matter in tunnel mode only."""
    esp = objective in (Objective.ESP, Objective.AH_ESP)
    ah = objective in (Objective.AH, Objective.AH_ESP)
    tunnel = mode is Mode.TUNNEL
    networks = networks or (NETWORK,)
    spec = TunnelSpec(
        name="carnet-example",
        role=Role.CLIENT,
        objective=objective,
        mode=mode,
        ike_version=ike_version,
        local_addresses=(),
        remote_addresses=(TARGET_ADDRESS,),
        local_identity="c-example.carnet",
        remote_identity="t-example.carnet",
        ike_proposals=_IKE[ike_version],
        esp_proposals=_ESP[ike_version] if esp else (),
        ah_proposals=_AH[ike_version] if ah else (),
        local_networks=(),
        remote_networks=networks if tunnel else (),
        virtual_address=VIRTUAL_ADDRESS[6 if ":" in networks[0] else 4] if tunnel else None,
        psk=_NO_SECRET,
        ppk=_NO_SECRET if ppk else None,
        ppk_id="p-example.carnet" if ppk else None,
        force_udp=False,
        lifetime=3600,
    )
    return replace(spec, ah_half=_ah_half(spec)) if esp and ah else spec


def _ah_half(spec: TunnelSpec) -> AhHalf:
    return AhHalf(
        local_identity=f"ah-{spec.local_identity}",
        remote_identity=f"ah-{spec.remote_identity}",
        psk=_NO_SECRET,
        ppk=spec.ppk,
        ppk_id=f"ah-{spec.ppk_id}" if spec.ppk_id else None,
    )

"""A tunnel as both ends are told of it, which tests share."""

from dataclasses import replace

from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.objectives import Objective

PSK = bytes(range(32))
PPK = bytes(range(100, 132))

CLIENT = TunnelSpec(
    name="carnet-7",
    role=Role.CLIENT,
    objective=Objective.ESP,
    mode=Mode.TUNNEL,
    ike_version=2,
    local_addresses=(),
    remote_addresses=("198.51.100.2",),
    local_identity="client-7",
    remote_identity="target-7",
    ike_proposals=("aes256gcm16-prfsha256-x25519",),
    esp_proposals=("aes256gcm16-x25519",),
    ah_proposals=(),
    local_networks=(),
    remote_networks=("10.20.0.0/16",),
    virtual_address="10.99.0.7",
    psk=PSK,
    ppk=PPK,
    ppk_id="ppk-7",
    force_udp=False,
    lifetime=3600,
)


def target_of(client: TunnelSpec) -> TunnelSpec:
    """Return Target's end of the same tunnel; the Client may come from anywhere."""
    return replace(
        client,
        role=Role.TARGET,
        remote_addresses=(),
        local_identity=client.remote_identity,
        remote_identity=client.local_identity,
        local_networks=client.remote_networks,
        remote_networks=(),
    )


TARGET = target_of(CLIENT)

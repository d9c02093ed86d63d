"""Step 5: from the terms to Tunneling Info. Pure, but for the random identities."""

import secrets

from carnet.objectives import Objective
from carnet.wire.messages import TunnelingInfo
from target_agent.access import Terms
from target_agent.config import TunnelsSection

_IDENTITY_OCTETS = 16


def tunneling_info(
    terms: Terms, tunnels: TunnelsSection, virtual_address: str | None, now: int
) -> TunnelingInfo:
    """Return all that the Client needs for her side; `now` is in seconds since 1970.

    The IKE identities are of this session only, so that who listens to one session
    knows nobody in the next.
    """
    proposed = tunnels.proposals_for(terms.ike_version)
    esp = terms.objective in (Objective.ESP, Objective.AH_ESP)
    ah = terms.objective in (Objective.AH, Objective.AH_ESP)
    return TunnelingInfo(
        target_addresses=terms.target_addresses,
        client_identity=_identity("c"),
        target_identity=_identity("t"),
        objective_id=int(terms.objective),
        mode=terms.mode,
        ike_version=terms.ike_version,
        ike_proposals=proposed.ike,
        esp_proposals=proposed.esp if esp else (),
        ah_proposals=proposed.ah if ah else (),
        ppk_id=_identity("p") if terms.ppk else None,
        networks=terms.networks,
        virtual_address=virtual_address,
        dns=tunnels.dns,
        mtu=tunnels.mtu,
        force_udp=tunnels.force_udp,
        initiate_within=tunnels.initiate_within,
        expires=now + terms.lifetime,
    )


def _identity(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(_IDENTITY_OCTETS)}.carnet"

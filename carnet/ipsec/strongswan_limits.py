"""What strongSwan can carry, on this machine and at all."""

from carnet.errors import IPsecError
from carnet.ipsec.kernel import kernel_has_ah, kernel_has_esp
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_algorithms import unknown_words, weak_words
from carnet.objectives import Objective

IKE_VERSIONS = (2, 1)
"""IKEv1 has no PPK, and a wrong pre-shared key shows there only as silence."""


def carried(*, userspace: bool) -> tuple[tuple[Objective, ...], tuple[Mode, ...]]:
    """Return which objectives and modes this machine carries.

    Userspace ESP is ESP in tunnel mode and nothing else: it pretends to NAT everywhere,
    so where there is none cannot be known.
    """
    if userspace:
        return (Objective.ESP,), (Mode.TUNNEL,)
    esp, ah = kernel_has_esp(), kernel_has_ah()
    found = {
        Objective.NATIVE: True,
        Objective.AH: ah,
        Objective.ESP: esp,
        Objective.AH_ESP: esp and ah,
    }
    return tuple(each for each, carried in found.items() if carried), tuple(Mode)


def refuse_what_cannot_be_carried(spec: TunnelSpec) -> None:
    """Raise IPsecError for what strongSwan has no words for, or what would be weak."""
    proposals = spec.ike_proposals + spec.esp_proposals + spec.ah_proposals
    unknown = unknown_words(proposals)
    weak = () if spec.allow_weak else weak_words(proposals)
    has_esp, has_ah = bool(spec.esp_proposals), bool(spec.ah_proposals)
    wants_esp = spec.objective in (Objective.ESP, Objective.AH_ESP)
    wants_ah = spec.objective in (Objective.AH, Objective.AH_ESP)
    native_tunnel = spec.objective is Objective.NATIVE and spec.mode is not Mode.TRANSPORT
    bare = spec.ike_version == 1 and spec.objective in (Objective.NATIVE, Objective.AH_ESP)
    several = max(len(spec.local_networks), len(spec.remote_networks)) > 1
    halved = spec.objective is Objective.AH_ESP and spec.ah_half is None
    for refused, what in (
        (native_tunnel, "a tunnel without IPsec"),
        (bare, f"{spec.objective.label} with IKEv1"),
        (spec.ike_version == 1 and several, "several networks with IKEv1"),
        (spec.ike_version == 1 and spec.ppk is not None, "a post-quantum key with IKEv1"),
        (halved, "AH and ESP without a second pair of identities"),
        (spec.ike_version not in IKE_VERSIONS, f"IKEv{spec.ike_version}"),
        (not spec.ike_proposals, "a tunnel without proposals"),
        (has_esp is not wants_esp, f"{spec.objective.label} with such ESP proposals"),
        (has_ah is not wants_ah, f"{spec.objective.label} with such AH proposals"),
        (bool(unknown), f"the algorithms {', '.join(unknown)}"),
        (bool(weak), f"the weak algorithms {', '.join(weak)}"),
        (spec.role is Role.CLIENT and not spec.remote_addresses, "a Client that knows no Target"),
    ):
        if refused:
            raise cannot_carry(what)


def cannot_carry(what: str) -> IPsecError:
    """Return the error that says so."""
    return IPsecError(
        f"The strongSwan driver cannot carry {what} and nothing is downgraded;"
        " choose another objective or driver."
    )

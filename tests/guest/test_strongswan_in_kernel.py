"""The strongSwan driver's own tests again, with the kernel's ESP in the place of userspace's.

Those that the kernel has a part in; `make soak` runs all of them.
"""

import os

import pytest

from carnet.errors import IPsecError
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan_parts import parts
from carnet.objectives import Objective
from lab.capture import Capture
from lab.network import CLIENT_ADDRESS, TARGET_ADDRESS
from tests.guest.bridge import SOAK
from tests.guest.gateways import ends_of, inside, install

if SOAK in os.environ:
    from tests.lab.test_strongswan import *  # noqa: F403
else:
    from tests.lab.test_strongswan import (  # noqa: F401
        test_a_tunnel_through_nat_carries_http_and_nothing_passes_in_clear,
        test_capabilities_are_what_the_daemon_has,
        test_forgotten_secrets_are_gone_and_rekeying_goes_on_without_them,
        test_transport_mode_is_carried_by_the_kernel_alone,
        test_two_travellers_at_once_with_suites_of_their_own,
    )

FOUND = "there is NAT on the way"


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (Objective.NATIVE, FOUND),
        (Objective.ESP, FOUND),
        # charon itself proposes and accepts no AH there.
        (Objective.AH, "NO_PROPOSAL_CHOSEN"),
        (Objective.AH_ESP, "NO_PROPOSAL_CHOSEN"),
    ],
)
def test_what_nat_breaks_is_ended_when_ike_finds_it(world, client, target, objective, said):
    """Whatever a Host has said of it, or somebody in its place."""
    ends = ends_of(objective, Mode.TRANSPORT)
    install(client, target, ends)
    with Capture(world.router) as capture, inside(client), pytest.raises(IPsecError, match=said):
        client.driver.up(ends.client)
    assert client.left() == []
    packets = capture.between(CLIENT_ADDRESS, TARGET_ADDRESS)
    assert packets["other"] == packets["ESP"] == 0


def test_nat_is_seen_at_target_too(client, target):
    ends = ends_of(Objective.NATIVE, Mode.TRANSPORT)
    install(client, target, ends)
    (only,) = parts(ends.client)
    client.driver._negotiation.start(only.name, has_child=bool(only.protocol))
    with inside(target), pytest.raises(IPsecError, match=FOUND):
        target.driver.confirm(ends.target)
    assert target.left() == []

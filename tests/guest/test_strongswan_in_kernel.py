"""The strongSwan driver's own tests again, with the kernel's ESP in the place of userspace's."""

import pytest

from carnet.errors import IPsecError
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan_parts import parts
from carnet.objectives import Objective
from lab.capture import Capture
from lab.network import CLIENT_ADDRESS, TARGET_ADDRESS
from tests.guest.gateways import ends_of, inside, install
from tests.lab.test_strongswan import *  # noqa: F403

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
    client.driver._initiate(parts(ends.client)[0])
    with inside(target), pytest.raises(IPsecError, match=FOUND):
        target.driver.confirm(ends.target)
    assert target.left() == []

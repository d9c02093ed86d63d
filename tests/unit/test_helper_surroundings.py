"""carnet-helper, and what this machine is in, at each call about a tunnel."""

from ipaddress import ip_network

import pytest

from carnet.ipsec.helper import messages as say
from carnet.ipsec.surroundings import Surroundings
from helper_agent.config import HelperConfig
from helper_agent.owners import Owners
from helper_agent.service import Service
from tests.unit.helper_world import MALLORY, NAME, SPEC, refused, spec, standing


class Machine:
    """Where it is, and which addresses it has."""

    def __init__(self):
        self.around = Surroundings()
        self.own = frozenset()


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def serve(tmp_path, daemon, machine):
    def started(**config):
        return Service(
            HelperConfig(**config), daemon, Owners(tmp_path, 2), lambda: machine.own, daemon,
            lambda _: machine.around,
        )  # fmt: skip

    return started


ADDED = Surroundings(on_link=(ip_network("10.99.0.0/24"),))
KERNEL_S_OWN = Surroundings(on_link=(ip_network("10.99.0.2/32"),))
"""As IPv6 has a route to each address of the machine's own."""


@pytest.mark.parametrize("around", [ADDED, KERNEL_S_OWN])
def test_what_stands_is_left_as_it_is(serve, daemon, machine, around, monkeypatch):
    service = serve()
    service.obey(MALLORY, say.Install(spec=spec()))
    machine.around, machine.own = around, frozenset({SPEC.virtual_address})
    service.obey(MALLORY, say.Resume(name=NAME))
    assert set(daemon.tunnels) == {NAME}
    for meanwhile in ([], [standing(spec(), established=False)]):
        monkeypatch.setattr(daemon, "status", lambda live=meanwhile: live)
        refused(service, MALLORY, say.Resume(name=NAME))

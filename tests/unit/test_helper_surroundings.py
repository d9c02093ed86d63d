"""carnet-helper, and what this machine is in: its own name servers, and what stands already."""

from ipaddress import ip_address, ip_network

import pytest

from carnet.ipsec.helper import messages as say
from carnet.ipsec.spec import Mode
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


MEANT = [
    Surroundings(name_servers=frozenset({ip_address("10.20.0.53"), ip_address("fd00::53")})),
    Surroundings(gateways=frozenset({ip_address("10.20.0.1")})),
]


@pytest.mark.parametrize("around", MEANT)
def test_no_tunnel_leads_to_this_machine_s_name_server_or_gateway(serve, daemon, machine, around):
    """All names of the machine would be answered in it, as if its name servers were used."""
    service, machine.around = serve(), around
    why = refused(service, MALLORY, say.May(networks=SPEC.remote_networks))
    assert "10.20.0.0/16" in why
    assert "name_servers in helper.toml" in why
    assert refused(service, MALLORY, say.Install(spec=spec())) == why
    assert daemon.tunnels == {}
    machine.around = Surroundings()
    service.obey(MALLORY, say.May(networks=SPEC.remote_networks))
    service.obey(MALLORY, say.Install(spec=spec()))
    machine.around = around  # which it has come into meanwhile
    assert refused(service, MALLORY, say.Up(spec=spec())) == why
    daemon.status = list
    assert refused(service, MALLORY, say.Resume(name=NAME)) == why


@pytest.mark.parametrize("around", MEANT)
def test_the_operator_lets_tunnels_lead_there(serve, machine, around):
    service, machine.around = serve(name_servers=True), around
    for call in (say.May(networks=SPEC.remote_networks), say.Install(spec=spec())):
        service.obey(MALLORY, call)
    service.obey(MALLORY, say.Up(spec=spec()))


def test_a_tunnel_to_target_alone_leads_no_names_away(serve, machine):
    """What is sent there gets there, whoever answers to it."""
    server = ip_address(SPEC.remote_addresses[0])
    service, machine.around = serve(), Surroundings(name_servers=frozenset({server}))
    alone = spec(remote_networks=(), mode=Mode.TRANSPORT, virtual_address=None)
    service.obey(MALLORY, say.Install(spec=alone))


ADDED = Surroundings(on_link=(ip_network("10.99.0.0/24"),))
KERNEL_S_OWN = Surroundings(on_link=(ip_network("10.99.0.2/32"),))
"""As IPv6 has a route to each address of the machine's own."""


@pytest.mark.parametrize("around", [ADDED, KERNEL_S_OWN, *MEANT])
def test_what_stands_is_left_as_it_is(serve, daemon, machine, around, monkeypatch):
    service = serve()
    service.obey(MALLORY, say.Install(spec=spec()))
    machine.around, machine.own = around, frozenset({SPEC.virtual_address})
    service.obey(MALLORY, say.Resume(name=NAME))
    assert set(daemon.tunnels) == {NAME}
    for meanwhile in ([], [standing(spec(), established=False)]):
        monkeypatch.setattr(daemon, "status", lambda live=meanwhile: live)
        refused(service, MALLORY, say.Resume(name=NAME))

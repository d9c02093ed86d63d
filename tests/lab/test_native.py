"""A session without IPsec by the whole protocol, with nftables as Target's gate.

It takes no ESP: so a kernel will do that has none, and strongSwan without its own, which
would pretend to NAT. The guest's kernel has ESP, and no nftables that know IP.
"""

import pytest

from carnet.objectives import Objective
from lab.charon import Lane
from lab.network import CLIENT_ADDRESS, ROUTED
from lab.waiting import wait_until
from lab.world import World
from target_agent.firewall.nft import TABLE
from tests.guest.addresses import BY_VERSION
from tests.guest.offices import OpenOffice
from tests.guest.traffic import fetch, serving


class GatedOffice(OpenOffice):
    def configure(self):
        super().configure()
        self.reconfigure_file('firewall = "iptables"', 'firewall = "nft"')

    def admit(self, **_):
        self.admit_to(Objective.NATIVE.label, BY_VERSION[4].network)


@pytest.fixture(scope="module")
def office():
    with World(ROUTED) as world, serving(world.server, world.target):
        made = GatedOffice(world, Lane.KERNEL)
        made.set_up(1)
        made.start()
        yield made


def opened(office):
    listed = office.world.target.run(["nft", "list", "set", "inet", TABLE, "open4"]).stdout
    return listed.partition("elements = ")[2].split("}")[0]


def flush(office, sessions):
    """Take all rules away, as a reload of nftables.service does, and wait for the gate."""
    office.world.target.run(["nft", "flush", "ruleset"])
    office.target_agent.wait_for_line(f'"open_for": {sessions}.*"event": "gate-gone"')
    listing = ["nft", "list", "table", "inet", TABLE]
    wait_until(
        lambda: not office.world.target.run(listing, check=False).returncode,
        "the gate to be there again",
    )


def test_the_gate_is_open_to_what_was_granted_and_closes_with_the_session(office):
    """And so it is where somebody takes it away, before the session and during it."""
    client, v4 = office.world.client, BY_VERSION[4]
    assert opened(office) == ""
    flush(office, 0)
    assert not fetch(client, v4.server, 1)
    facts = office.connect("--objective", "native", "--network", v4.network)
    assert opened(office).startswith(f"{{ {CLIENT_ADDRESS} . {v4.network} timeout ")
    flush(office, 1)
    assert opened(office).startswith(f"{{ {CLIENT_ADDRESS} . {v4.network} timeout ")
    assert fetch(client, v4.server)
    assert not fetch(client, v4.target, 1)
    office.end(facts)
    assert opened(office) == ""
    assert not fetch(client, v4.server, 1)

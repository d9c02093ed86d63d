"""SIGKILL at every durable step of the Host, and what the next process makes of it."""

import pytest

from tests.crashes.checks import all_agree

ONE = {1}

STEPS_OF_A_REQUEST = [
    "host.opened",
    "accounts.appended spent",
    "host.spent",
    "host.target-answered",
    "host.sealed",
    "accounts.appended answered",
    "host.answered",
    "host.replied",
    "token.private-destroyed",
    "host.key-destroyed",
    "accounts.appended key-destroyed",
    "host.burned",
]


@pytest.mark.parametrize("place", STEPS_OF_A_REQUEST)
def test_a_request_costs_one_pair_wherever_the_host_dies(office, since, place):
    office.arm(office.world.host, place)
    connecting = office.start_connect()
    died = office.host_dies()
    assert connecting.wait(60) == 0, connecting.output()
    all_agree(office, died, spent=ONE, since=since)


def test_a_host_that_dies_again_as_it_takes_a_request_up(office, since):
    office.arm(office.world.host, "host.spent")
    connecting = office.start_connect()
    office.host_agent.wait(60)
    office.arm(office.world.host, "host.lease-taken")
    office.host_agent = office.begin_host()
    died = office.host_dies()
    assert connecting.wait(60) == 0, connecting.output()
    all_agree(office, died, spent=ONE, since=since)

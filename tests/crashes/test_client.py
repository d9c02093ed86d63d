"""SIGKILL at every durable step of `carnet connect` and `disconnect`, and the same again."""

import pytest

from tests.crashes.checks import all_agree
from tests.crashes.killing import KILLED, SWITCH
from tests.crashes.looks import look
from tests.lab.test_recovery import connect_to_impostor

ONE = {1}

STEPS_WITH_ONE_PAIR = [
    "files.synced pending",
    "client.prepared",
    "client.answered",
    "client.opened",
    "files.synced session",
    "client.session-kept",
    "client.closed",
    "ipsec.secrets-loaded",
    "client.configured",
    "ipsec.initiated",
    "client.established",
    "client.secrets-forgotten",
]
STEPS_AFTER_THE_BURN = [
    "token.private-destroyed",
    "client.burned",
    "client.others-burned",
    "client.done",
]
"""The pair is spent and its tunnel stands; the next run takes the next pair."""
STEPS_OF_A_NO = ["files.synced aside", "client.set-aside"]
STEPS_OF_A_DISCONNECT = [
    "ipsec.terminated",
    "ipsec.connection-unloaded",
    "client.disconnected",
    "client.released",
]


def dies(office, place):
    dying = office.start_connect(extra={SWITCH: place})
    assert dying.wait(60) in KILLED, (place, dying.output())
    return look(office)


@pytest.mark.parametrize("place", STEPS_WITH_ONE_PAIR)
def test_a_client_that_dies_goes_on_with_the_same_pair(office, since, place):
    died = dies(office, place)
    office.connect()
    spent = {0, 1} if place == "files.synced pending" else ONE
    all_agree(office, died, spent=spent, since=since)


@pytest.mark.parametrize("place", STEPS_AFTER_THE_BURN)
def test_a_client_that_dies_late_leaves_no_usable_pair(office, since, place):
    died = dies(office, place)
    office.connect()
    all_agree(office, died, spent={2}, since=since)


def test_a_client_that_dies_as_it_gives_up(office, since):
    """Target waits no more: the answer is fetched again, and leads nowhere."""
    died = dies(office, "client.opened")
    (request_id,) = set(look(office).requests) - set(since.requests)
    office.target("tunnels", "end", request_id)
    died = dies(office, "client.tunnel-removed")
    office.connect()
    all_agree(office, died, spent={2}, since=since)


@pytest.mark.parametrize("place", STEPS_OF_A_NO)
def test_a_client_that_dies_as_it_sets_a_pair_aside(office, since, place):
    done = connect_to_impostor(office, "refuse", crash_at=place)
    assert done.returncode in KILLED, done.stderr
    died = look(office)
    office.connect()
    all_agree(office, died, spent=ONE, since=since)


@pytest.mark.parametrize("place", STEPS_OF_A_DISCONNECT)
def test_a_disconnect_that_was_killed_is_run_again(office, standing, since, place):
    died = office.killed(office.world.client, "carnet", "disconnect", place=place)
    office.carnet("disconnect")
    office.connect()
    all_agree(office, died, spent=ONE, since=since)

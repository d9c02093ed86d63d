"""SIGKILL at every durable step of the Target, beside a charon that lives on."""

import pytest

from lab.office import USER
from lab.waiting import wait_until
from tests.crashes.checks import all_agree
from tests.crashes.looks import look

ONE = {1}

STEPS_OF_A_TUNNEL = [
    "ipsec.secrets-loaded",
    "ipsec.pool-loaded",
    "target.installed",
    "accounts.appended tunnel-prepared",
    "target.prepared",
    "target.replied",
    "target.confirmed",
    "target.secrets-forgotten",
    "accounts.appended tunnel-established",
    "target.established",
]
STEPS_OF_AN_END = [
    "ipsec.terminated",
    "ipsec.connection-unloaded",
    "ipsec.pool-unloaded",
    "target.removed",
    "accounts.appended tunnel-ended",
    "target.ended",
]
STEPS_OF_A_DOOM = ["accounts.appended tunnel-ending", "target.doomed"]
STEPS_OF_A_REFUSAL = ["accounts.appended tunnel-refused", "target.refused"]


@pytest.mark.parametrize("place", STEPS_OF_A_TUNNEL)
def test_a_request_makes_one_tunnel_wherever_the_target_dies(office, since, place):
    office.arm(office.world.target, place)
    connecting = office.start_connect()
    died = office.target_dies()
    assert connecting.wait(60) == 0, connecting.output()
    all_agree(office, died, spent=ONE, since=since)


@pytest.mark.parametrize("place", STEPS_OF_AN_END)
def test_a_tunnel_ends_once_wherever_the_target_dies(office, standing, since, place):
    office.arm(office.world.target, place)
    office.connect()
    died = office.target_dies()
    all_agree(office, died, spent=ONE, since=since)


@pytest.mark.parametrize("place", STEPS_OF_A_DOOM)
def test_an_end_that_waits_for_the_daemon_is_not_forgotten(office, standing, since, place):
    (tunnel,) = look(office).live.values()
    office.arm(office.world.target, place)
    # It is there and silent: a tunnel of one that is gone, and of which the kernel has nothing, is
    # over at once.
    office.target_charon.freeze()
    try:
        office.host("revoke", "--key", tunnel["key_id"].hex(), "--reason", "a test")
        died = office.target_dies()
    finally:
        office.target_charon.thaw()
    wait_until(lambda: not look(office).live, "the end to be recorded", 60)
    office.connect()
    all_agree(office, died, spent=ONE, since=since)


@pytest.mark.parametrize("place", STEPS_OF_A_REFUSAL)
def test_a_refusal_is_given_once(office, since, place):
    office.target("users", "remove", USER)
    office.arm(office.world.target, place)
    connecting = office.start_connect()
    died = office.target_dies()
    assert connecting.wait(60) == 3, connecting.output()
    office.admit()
    office.connect()
    all_agree(office, died, spent={2}, since=since)


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("accounts.appended member-removed", ["users", "remove", USER]),
        (
            "accounts.appended access-granted",
            ["users", "add", USER, "--objective", "esp", "--network", "10.20.0.0/16",
             "--lifetime", "8h"],
        ),
    ],
)  # fmt: skip
def test_membership_changes_whole_or_not_at_all(office, since, place, command):
    def members():
        return office.target("users", "list", "--json").stdout

    before = members()
    died = office.killed(office.world.target, *office._target_argv(), *command, place=place)
    assert members() == before
    office.connect()
    all_agree(office, died, spent=ONE, since=since)

"""SIGKILL at every durable step of the Host that comes after an answer, or beside it."""

import signal

import pytest
from sqlalchemy import update

from carnet.database import transaction
from host_agent import schema
from lab.waiting import wait_until
from tests.crashes.checks import all_agree
from tests.crashes.looks import look

ONE = {1}

STEPS_OF_AN_END = ["host.end-told", "accounts.appended tunnel-ended", "host.accounted"]
STEPS_OF_A_HEAD = [
    "accounts.head-signed",
    "accounts.head-kept",
    "token.stored carnet accounts head",
    "token.replaced carnet accounts head",
]
STEPS_OF_AN_EXPIRY = ["accounts.appended expired", "host.expired"]
STEPS_OF_A_REVOCATION = [
    "accounts.appended revoked",
    "host.revoked",
    "accounts.appended tunnel-revoked",
]
STEPS_OF_A_REVOKED_TUNNEL = [
    "host.end-asked",
    "accounts.appended tunnel-end-asked",
    "host.end-recorded",
]


def last_valid(office):
    valid = [pair for pair in look(office).pairs.values() if pair["state"] == "valid"]
    return max(valid, key=lambda pair: pair["label"])["key_id"].hex()


@pytest.mark.parametrize("place", STEPS_OF_AN_END)
def test_the_end_of_a_tunnel_is_accounted_for_once(office, standing, since, place):
    office.arm(office.world.host, place)
    office.connect()
    died = office.host_dies()
    all_agree(office, died, spent=ONE, since=since)


@pytest.mark.parametrize("place", STEPS_OF_A_HEAD)
def test_a_host_that_dies_as_it_signs_its_accounts(office, since, place):
    office.connect()
    office.arm(office.world.host, place)
    office.host_agent.signal(signal.SIGTERM)
    died = office.host_dies()
    # What was left of a head on the HSM is removed with the next one that is written.
    office.connect()
    office.host_agent.stop()
    office.host_agent = office.serve_host()
    all_agree(office, died, spent={2}, since=since)


@pytest.mark.parametrize("place", STEPS_OF_AN_EXPIRY)
def test_a_pair_expires_once(office, since, place):
    old = look(office).pairs[last_valid(office)]
    with transaction(office.database.engine) as connection:
        connection.execute(
            update(schema.key_pairs)
            .where(schema.key_pairs.c.key_id == old["key_id"])
            .values(not_after=1)
        )
    office.host_agent.stop()
    office.arm(office.world.host, place)
    office.host_agent = office.begin_host()
    died = office.host_dies()
    office.connect()
    all_agree(office, died, spent=ONE, since=since)
    assert look(office).pairs[old["key_id"].hex()]["reason"] == "expired"


@pytest.mark.parametrize("place", STEPS_OF_A_REVOCATION)
def test_a_revocation_that_was_killed_is_run_again(office, since, place):
    office.connect()
    (spent,) = look(office).spent - since.spent
    key = spent if "tunnel" in place else last_valid(office)
    revoke = [*office._host_argv(), "revoke", "--key", key, "--reason", "a test"]
    died = office.killed(office.world.host, *revoke, place=place)
    office.command(office.world.host, *revoke, check=False)
    now = look(office)
    assert now.pairs[key]["state"] == "invalid"
    # The sweep at its start destroys the private key; the next would do so within a minute.
    office.host_agent.stop()
    office.host_agent = office.serve_host()
    wait_until(lambda: "tunnel" not in place or not look(office).live, "the tunnel's end", 60)
    office.connect()
    all_agree(office, died, spent={2}, since=since)


@pytest.mark.parametrize("place", STEPS_OF_A_REVOKED_TUNNEL)
def test_a_revoked_tunnel_is_ended_wherever_the_host_dies(office, since, place):
    office.connect()
    (key,) = look(office).spent - since.spent
    office.arm(office.world.host, place)
    office.host("revoke", "--key", key, "--reason", "a test")
    died = office.host_dies()
    wait_until(lambda: not look(office).live, "the tunnel's end", 60)
    office.connect()
    all_agree(office, died, spent={2}, since=since)

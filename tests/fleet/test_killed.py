"""SIGKILL at the durable steps of a Host on PostgreSQL: the next process goes on from there.

The same places are tried on SQLite with everything real around them, in `tests/crashes`; those
that are about the HSM are tried here in `make soak` alone.
"""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from carnet.audit.chain import follow
from host_agent import schema
from host_agent.keydb import KeyDatabase
from lab.waiting import wait_until
from tests.fleet.conftest import IN_FULL
from tests.fleet.test_concurrency import accounts, nothing_owed
from tests.fleet.traveller import open_grant, seal, send_one, send_until_answered

PATIENCE = 60
KILLED = {-9, 137}
REVOKE = ("revoke", "--user", "alice@office", "--reason", "a test")

pytestmark = pytest.mark.parametrize("place", ["postgresql"], indirect=True)

STEPS_OF_A_REQUEST = [
    "host.opened",
    "accounts.appended spent",
    "host.spent",
    "host.target-answered",
    "host.sealed",
    "accounts.appended answered",
    "host.answered",
    "host.replied",
    "host.key-destroyed",
    "accounts.appended key-destroyed",
    "host.burned",
]
STEPS_OF_A_REVOCATION = [
    "accounts.appended revoked",
    "host.revoked",
    "accounts.appended tunnel-revoked",
]
STEPS_OF_A_REVOKED_TUNNEL = [
    "host.end-asked",
    "accounts.appended tunnel-end-asked",
    "host.end-recorded",
    "host.end-told",
    "accounts.appended tunnel-ended",
    "host.accounted",
]
STEPS_OF_AN_EXPIRY = ["accounts.appended expired", "host.expired"]
STEPS_OF_A_HEAD = ["accounts.head-signed", "accounts.head-kept"]
if IN_FULL:  # with what is about the HSM alone
    STEPS_OF_A_REQUEST += ["token.private-destroyed"]
    STEPS_OF_A_HEAD += [f"token.{done} carnet accounts head" for done in ("stored", "replaced")]


def whole(fleet, **events):
    """The chain holds, and each event is accounted for so often."""
    with KeyDatabase.opened(fleet.place) as database, database.begin() as connection:
        assert all(link.holds for link in follow(connection, schema.audit))
    found = accounts(fleet.place)
    assert {event: found.count(event) for event in events} == events


def dies(process):
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("step", STEPS_OF_A_REQUEST)
def test_a_request_costs_one_pair_wherever_the_host_dies(fleet, keys, step):
    (key,) = keys(1)
    (process,) = fleet.start(1, CARNET_CRASH_AT=step)
    request = seal(key)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(send_one, process.url, request)
        dies(process)
    process.start()
    assert open_grant(key, request, send_until_answered([process.url], request))
    assert send_one(process.url, seal(key)).status == 403
    wait_until(lambda: nothing_owed(fleet.place), "the burn", PATIENCE)
    assert len(fleet.gateway.session_keys) == 1
    assert not fleet.token.held()
    whole(fleet, **{"spent": 1, "answered": 1, "key-destroyed": 1})


def test_a_host_that_dies_again_as_it_takes_a_request_up(fleet, keys):
    (key,) = keys(1)
    (process,) = fleet.start(1, CARNET_CRASH_AT="host.spent")
    request = seal(key)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(send_one, process.url, request)
        dies(process)
    process.begin(CARNET_CRASH_AT="host.lease-taken")
    dies(process)
    process.start()
    assert open_grant(key, request, send_until_answered([process.url], request))
    assert len(fleet.gateway.session_keys) == 1


@pytest.mark.parametrize("step", STEPS_OF_A_REVOCATION)
def test_a_revocation_that_was_killed_is_run_again(fleet, keys, step):
    used, unused = keys(2)
    (process,) = fleet.start(1)
    request = seal(used)
    assert open_grant(used, request, send_until_answered([process.url], request))
    assert process.run_dying(step, *REVOKE).returncode in KILLED
    process.run(*REVOKE)
    assert send_one(process.url, seal(unused)).status == 403
    wait_until(lambda: "tunnel-ended" in accounts(fleet.place), "the tunnel's end", PATIENCE)
    whole(fleet, **{"revoked": 1, "tunnel-revoked": 1, "tunnel-ended": 1})


@pytest.mark.parametrize("step", STEPS_OF_A_REVOKED_TUNNEL)
def test_a_revoked_tunnel_is_ended_once_wherever_the_host_dies(fleet, keys, step):
    (key,) = keys(1)
    (process,) = fleet.start(1)
    request = seal(key)
    assert open_grant(key, request, send_until_answered([process.url], request))
    process.stop()
    process.run(*REVOKE)
    process.begin(CARNET_CRASH_AT=step)
    dies(process)
    process.start()
    wait_until(lambda: "tunnel-ended" in accounts(fleet.place), "the tunnel's end", PATIENCE)
    wait_until(lambda: "tunnel-end-asked" in accounts(fleet.place), "its record", PATIENCE)
    process.stop()
    whole(fleet, **{"tunnel-revoked": 1, "tunnel-end-asked": 1, "tunnel-ended": 1})


@pytest.mark.parametrize("step", STEPS_OF_AN_EXPIRY)
def test_a_pair_expires_once(fleet, keys, step):
    (key,) = keys(1)
    with KeyDatabase.opened(fleet.place) as database, database.engine.begin() as connection:
        connection.execute(update(schema.key_pairs).values(not_after=1))
    (process,) = begun(fleet, step)
    dies(process)
    process.start()
    wait_until(lambda: "key-destroyed" in accounts(fleet.place), "the burn", PATIENCE)
    assert send_one(process.url, seal(key)).status == 403
    whole(fleet, **{"expired": 1, "key-destroyed": 1})


@pytest.mark.parametrize("step", STEPS_OF_A_HEAD)
def test_a_host_that_dies_as_it_signs_its_accounts(fleet, keys, step):
    keys(1)
    (process,) = begun(fleet, step)
    dies(process)
    process.start()
    process.stop()
    verified = process.run_with_pin("audit", "verify")
    assert verified.returncode == 0, verified.stderr


def begun(fleet, step):
    """Start one process that dies before it is ready, or soon after."""
    return fleet.begin(1, CARNET_CRASH_AT=step)

"""A process of the Host that is slow, dies, or loses its database: the others go on."""

import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from carnet.wire.keys import key_id_of
from host_agent.config import load
from host_agent.keydb import KeyDatabase
from lab.postgresql import postgres_machine
from lab.waiting import wait_until
from tests.fleet.fleet import Fleet, HostProcess
from tests.fleet.gateway import Gateway
from tests.fleet.test_concurrency import accounts, nothing_owed, urls_of
from tests.fleet.traveller import open_grant, seal, send_one, send_until_answered
from tests.host.conftest import postgres_place
from tests.target.certificates import Authority
from tests.unit.examples import SoftwareKey

PATIENCE = 120
"""Seconds: on a busy machine everything takes its time."""


@pytest.fixture
def held(fleet):
    """Target holds its answer back until the test lets it."""
    asked, let = threading.Event(), threading.Event()

    def hold():
        asked.set()
        assert let.wait(PATIENCE)

    fleet.gateway.driver.before_install = hold
    yield asked, let
    let.set()


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_nothing_of_a_process_is_kept_outside_the_fleets_directory(fleet):
    """Above all not in the machine's own /var/lib/carnet-host, which may be in use."""
    HostProcess(fleet, 0)
    config = load(fleet.directory / "host-0.toml")
    assert config.directory == config.observers.path.parent == fleet.directory


def test_a_process_that_is_stopped_is_replaced_and_its_answer_is_the_same(fleet, keys, held):
    (key,), (asked, let) = keys(1), held
    slow, quick = fleet.start(2)
    request = seal(key)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(send_one, slow.url, request)
        assert asked.wait(PATIENCE)
        at_work = send_one(quick.url, request)
        assert (at_work.status, at_work.reason) == (503, "host-not-ready")
        slow.signal(signal.SIGSTOP)
        let.set()
        taken_up = send_until_answered([quick.url], request)
        slow.signal(signal.SIGCONT)
        woken = first.result(PATIENCE)
        if woken.status == 503:  # it may have others ask again what it lost its lease of
            woken = send_until_answered([slow.url], request)
        assert woken.body == taken_up.body
    assert taken_up.status == 200
    assert open_grant(key, request, taken_up)
    assert len(fleet.gateway.driver.installs) == 1
    assert accounts(fleet.place).count("answered") == 1


def test_a_process_that_only_waits_for_target_keeps_its_request(fleet, keys, held):
    """Longer than a lease is long: whoever works on a request says so."""
    (key,), (asked, let) = keys(1), held
    slow, other = fleet.start(2)
    request = seal(key)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(send_one, slow.url, request)
        assert asked.wait(PATIENCE)
        with KeyDatabase.opened(fleet.place) as database:
            leases = {lease_of(database)}
            wait_until(
                lambda: leases.add(lease_of(database)) or len(leases) > 3, "renewals", PATIENCE
            )
        assert send_one(other.url, request).status == 503
        let.set()
        assert first.result(PATIENCE).status == 200


def lease_of(database):
    with database.begin() as connection:
        query = "SELECT holder, lease_until FROM requests"
        return tuple(connection.exec_driver_sql(query).one())


@pytest.mark.parametrize("place_of_death", ["host.spent", "host.sealed"])
def test_what_a_dead_process_left_is_finished_by_another_unasked(fleet, keys, place_of_death):
    (key,) = keys(1)
    dying, other = fleet.start(2, CARNET_CRASH_AT=place_of_death)
    request = seal(key)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(send_one, dying.url, request)
        assert dying.wait() == -signal.SIGKILL
    with KeyDatabase.opened(fleet.place) as database:
        wait_until(
            lambda: database.find_request(key_id_of(key.public_key)).outcome == "granted",
            "another process to take the request up",
            PATIENCE,
        )
    reply = send_one(other.url, request)
    assert open_grant(key, request, reply)
    assert len(fleet.gateway.session_keys) == 1
    wait_until(lambda: nothing_owed(fleet.place), "the private key to be destroyed", PATIENCE)
    assert not fleet.token.held()


def test_a_process_that_is_told_to_stop_gives_its_requests_back(fleet, keys, held):
    (key,), (asked, let) = keys(1), held
    leaving, other = fleet.start(2)
    request = seal(key)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(send_one, leaving.url, request)
        assert asked.wait(PATIENCE)
        leaving.signal(signal.SIGTERM)
        assert leaving.wait() == 0
        assert first.result().status == 503
    with KeyDatabase.opened(fleet.place) as database:
        assert lease_of(database) == (None, None)
    let.set()
    assert send_until_answered([other.url], request).status == 200


def test_revoking_ends_the_tunnels_that_live(fleet, keys):
    spent, unspent = keys(2)
    processes = fleet.start(2)
    request = seal(spent)
    assert send_until_answered(urls_of(processes), request).status == 200
    driver = fleet.gateway.driver
    assert len(driver.installed()) == 1
    said = processes[0].run("revoke", "--user", "alice@office", "--reason", "stolen", "--json")
    facts = json.loads(said)
    revoked = [key_id_of(unspent.public_key).hex()]
    assert facts == {"revoked": revoked, "importing": 0, "tunnels": 1}
    wait_until(lambda: not driver.installed(), "Target to end the tunnel", PATIENCE)
    # Target may tell of the end before its answer to who asked for it is written down.
    both = {"tunnel-end-asked", "tunnel-ended"}
    wait_until(lambda: both <= set(accounts(fleet.place)), "the accounts of it", PATIENCE)
    events = accounts(fleet.place)
    for event in ("revoked", "tunnel-revoked", "tunnel-end-asked", "tunnel-ended"):
        assert events.count(event) == 1
    (pair,) = json.loads(processes[0].run("keys", "--state", "spent", "--json"))
    assert pair["end_reason"] == "revoked"


@pytest.fixture
def machine():
    with postgres_machine() as made:
        yield made


def test_a_database_that_goes_away_costs_nothing_and_comes_back(directory, machine, token):
    authority, keys = Authority(directory), [SoftwareKey(), SoftwareKey()]
    place = postgres_place(machine.start(), "postgres")
    with (
        Gateway(directory, authority) as gateway,
        Fleet(directory, place, authority, token, gateway) as fleet,
    ):
        fleet.import_keys(keys)
        urls = urls_of(fleet.start(2))
        before, during = map(seal, keys)
        assert send_until_answered(urls, before).status == 200
        machine.stop(signal.SIGQUIT)
        for url in urls:
            away = send_one(url, during)
            assert (away.status, away.reason, away.retry_after) == (503, "host-not-ready", "2")
        assert len(gateway.session_keys) == 1
        machine.start()
        assert send_until_answered(urls, during).status == 200
        assert len(gateway.session_keys) == 2
        assert accounts(place).count("spent") == 2

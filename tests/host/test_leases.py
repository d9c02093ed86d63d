"""The lease of a request: one process of the Host works on it, and a dead one for no longer."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

from carnet import audit
from carnet.audit.chain import follow
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.keydb import LEASE_SECONDS, KeyDatabase
from tests.host.conftest import new_pair, sealed_request
from tests.unit.examples import SoftwareKey


@pytest.fixture
def key_id(database, pair):
    """A request that this process has spent a pair for, and works on."""
    database.spend(*sealed_request(pair))
    return key_id_of(pair.public_key)


@pytest.fixture
def processes(place, database):
    """Four processes that have the same Key Database open."""
    with ExitStack() as stack:
        yield [stack.enter_context(KeyDatabase.opened(place)) for _ in range(4)]


def at_once(calls):
    start = Barrier(len(calls))

    def run(call):
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def test_whoever_spends_a_pair_works_on_its_request(other_process, key_id):
    assert not other_process.take_lease(key_id)
    assert other_process.unanswered() == other_process.abandoned() == []


def test_a_process_goes_on_with_what_it_has(database, key_id):
    assert database.take_lease(key_id)


def test_a_lease_that_is_renewed_is_kept(database, other_process, key_id, clock):
    for _ in range(3):
        clock.move(LEASE_SECONDS - 2)
        database.renew_leases([key_id])
        assert not other_process.take_lease(key_id)


def test_a_lease_that_runs_out_is_taken_and_stays_taken(database, other_process, key_id, clock):
    clock.move(LEASE_SECONDS)
    assert [each.key_id for each in other_process.abandoned()] == [key_id]
    assert other_process.take_lease(key_id)
    database.renew_leases([key_id])
    database.let_go(key_id)
    assert not database.take_lease(key_id)
    assert database.unanswered() == []


def test_what_is_let_go_is_taken_at_once_and_is_not_abandoned(database, other_process, key_id):
    database.let_go(key_id)
    assert other_process.abandoned() == []
    assert [each.key_id for each in other_process.unanswered()] == [key_id]
    assert other_process.take_lease(key_id)


def test_a_lease_from_before_the_clock_was_set_back_is_over(other_process, key_id, clock):
    """Of a process that died, or nobody would take its request up until it is that late again."""
    clock.move(-1)
    assert not other_process.take_lease(key_id)
    clock.move(-3600)
    assert [each.key_id for each in other_process.abandoned()] == [key_id]
    assert other_process.take_lease(key_id)


def test_of_many_processes_one_gets_a_lease(processes, key_id, clock):
    clock.move(LEASE_SECONDS)
    taken = at_once([lambda each=each: each.take_lease(key_id) for each in processes])
    assert sum(taken) == 1


def test_who_lost_its_lease_stores_no_second_answer(database, other_process, key_id, clock):
    clock.move(LEASE_SECONDS)
    other_process.take_lease(key_id)
    assert other_process.store_response(key_id, "granted", b"first") == b"first"
    assert database.store_response(key_id, "granted", b"second") == b"first"


def test_a_slow_process_may_still_be_first(database, other_process, key_id, clock):
    clock.move(LEASE_SECONDS)
    other_process.take_lease(key_id)
    assert database.store_response(key_id, "granted", b"slow") == b"slow"
    assert other_process.store_response(key_id, "granted", b"quick") == b"slow"
    assert not other_process.take_lease(key_id)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_the_servers_clock_decides_and_not_the_machines(other_process, key_id, clock, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert not other_process.take_lease(key_id)
    assert other_process.find_request(key_id).too_old is False
    clock.move(LEASE_SECONDS)
    assert other_process.take_lease(key_id)


def test_several_processes_at_once_make_one_chain(processes):
    keys = [SoftwareKey() for _ in range(40)]

    def work(number):
        database, key = processes[number % len(processes)], keys[number]
        database.add_pairs([new_pair(key)])
        database.spend(*sealed_request(key))
        database.revoke("a test", key_id=key_id_of(key.public_key))
        database.store_response(key_id_of(key.public_key), "granted", b"answer")
        database.record_destroyed(key_id_of(key.public_key))

    at_once([lambda n=n: work(n) for n in range(len(keys))])
    with processes[0].begin() as connection:
        assert all(link.holds for link in follow(connection, schema.audit))
        events = [record.event for record in audit.read(connection, schema.audit)]
    assert len(events) == 4 * len(keys)


def test_revoking_and_expiring_everything_at_once_deadlocks_nobody(processes):
    keys = [SoftwareKey() for _ in range(30)]
    for key in keys:
        processes[0].add_pairs([new_pair(key)])
    requests = [sealed_request(key) for key in keys]
    calls = [
        *(lambda each=each: each.revoke("a test", user_id="alice@office") for each in processes),
        *(lambda each=each: each.expire() for each in processes),
        *(lambda r=r: processes[0].spend(*r) for r in requests),
    ]
    done = at_once(calls)
    revoked = [key_id for each in done[: len(processes)] for key_id in each]
    assert len(revoked) + sum(done[2 * len(processes) :]) == len(keys)

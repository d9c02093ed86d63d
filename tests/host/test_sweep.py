"""What nobody asks for any more is settled by the sweep, not only at the next start."""

import asyncio
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import OperationalError

from carnet.errors import TokenError
from carnet.wire.keys import key_id_of
from host_agent import custody, sweeping
from host_agent.clock_watch import BELIEVED_SECONDS, LEAP_SECONDS, ClockWatch
from host_agent.exchange import Exchange, Parts
from host_agent.keydb import ANSWER_KEPT
from host_agent.leases import Leases
from host_agent.outcome import Later, Rejected
from host_agent.server import HostService
from host_agent.target_link import TargetSilentError
from tests.host.conftest import new_pair, sealed_request
from tests.host.test_accounts import lift
from tests.unit.examples import SoftwareKey


def test_requests_are_unanswered_by_age(database, pair, clock):
    database.spend(*sealed_request(pair))
    database.let_go(key_id_of(pair.public_key))
    assert len(database.unanswered()) == 1
    assert database.unanswered(ANSWER_KEPT) == []
    clock.move(ANSWER_KEPT + 1)
    assert len(database.unanswered(ANSWER_KEPT)) == 1


def test_an_answer_that_stood_first_and_is_no_longer_kept_is_none(database, pair, clock):
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"first")
    clock.move(ANSWER_KEPT + 1)
    database.drop_old_responses()
    assert database.store_response(envelope.key_id, "granted", b"second") is None


def test_the_sweep_outlives_a_database_that_fails_for_a_while(database, monkeypatch):
    calls = []

    async def main():
        swept_again = asyncio.Event()
        loop = asyncio.get_running_loop()

        def expire(_):
            calls.append("expire")
            if len(calls) == 1:
                raise OperationalError("", {}, Exception("database is locked"))
            loop.call_soon_threadsafe(swept_again.set)

        monkeypatch.setattr(database, "expire", expire)
        monkeypatch.setattr(sweeping, "SWEEP_SECONDS", 0)
        hsm = SimpleNamespace(serial=None)
        service = HostService(Parts(database, hsm, None, Leases(database), None))
        service.background.start("sweep", service.sweep.keep)
        await asyncio.wait_for(swept_again.wait(), 10)
        await service.stop()

    asyncio.run(main())
    assert len(calls) >= 2


LATER = Later("target-unreachable")
TOO_LATE = "The request is too old to be taken up again."


def swept(service):
    asyncio.run(service.sweep.end_by_clock())


def watched(database, passed):
    """A service whose machine has been up for as long as the test says."""
    clock = ClockWatch(lambda: passed[0])
    hsm = SimpleNamespace(require=lambda: None)
    link = SimpleNamespace(knows=lambda _: True, pass_on=silent)
    parts = Parts(database, hsm, link, Leases(database), None, clock=clock)
    return HostService(parts)


@pytest.fixture
def passed():
    """For how long the machine has been up, which the test changes."""
    return [1000.0]


@pytest.fixture
def service(database, passed):
    """One that has seen the clock."""
    made = watched(database, passed)
    swept(made)
    return made


@pytest.fixture
def envelope(service, database, pair):
    """Of a request that was spent when the clock was right."""
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    return envelope


def test_no_pair_expires_by_a_clock_that_leaps_ahead_until_it_is_believed(
    database, clock, service, passed
):
    key = SoftwareKey()
    last_day, leap = database.clock() + 2 * BELIEVED_SECONDS, 3 * BELIEVED_SECONDS
    database.add_pairs([new_pair(key, not_after=last_day), new_pair(SoftwareKey())])

    def state_after(leap, seconds):
        clock.move(leap + seconds)
        passed[0] += seconds
        swept(service)
        return database.find_pair(key_id_of(key.public_key)).state

    assert state_after(0, 0) == state_after(leap, 0) == "valid"
    assert not database.spend(*sealed_request(key))
    assert state_after(0, BELIEVED_SECONDS - 1) == "valid"
    # It is put right, and what it was before does not count.
    assert state_after(-leap, 0) == "valid"
    assert state_after(leap, 0) == state_after(0, BELIEVED_SECONDS - 1) == "valid"
    assert state_after(0, 1) == "invalid"
    assert {each.state for each in database.count()} == {"expired", "valid"}


def test_no_answer_is_forgotten_by_a_clock_that_leaps_ahead(
    database, clock, service, passed, envelope
):
    database.store_response(envelope.key_id, "granted", b"answer")
    for seconds, kept in ((0, b"answer"), (ANSWER_KEPT, None)):
        clock.move(ANSWER_KEPT)
        passed[0] += seconds
        swept(service)
        clock.move(-ANSWER_KEPT)
        assert database.find_request(envelope.key_id).response == kept


def opened(signed):
    async def open_request(*_):
        return signed

    return open_request


async def silent(*_):
    raise TargetSilentError("target-unreachable", "as it is for now")


def asked(service, envelope):
    """Return what these bytes lead to now: an own refusal, sealed or not, or another time."""

    async def main():
        exchange = Exchange(service.parts, envelope)
        await service._run(exchange)
        return exchange.refusal or exchange.outcome.result()

    return asyncio.run(main())


def test_a_request_is_too_late_by_no_clock_that_has_leapt(
    database, clock, service, passed, envelope, monkeypatch
):
    """Whoever takes it up: the sweep, who finds a lease that ran out, or its Client."""
    taken_up = []
    monkeypatch.setattr(custody, "seal_response", away)
    monkeypatch.setattr(service, "_start", lambda run: taken_up.append(run.close()))
    for seconds, times, answer in (
        (0, 0, Later("host-not-ready")),
        (ANSWER_KEPT, 2, TOO_LATE),
    ):
        passed[0] += seconds
        clock.move(ANSWER_KEPT)
        asyncio.run(service.settle())
        asyncio.run(service._take_up(database.abandoned()))
        assert len(taken_up) == times
        assert asked(service, envelope) == answer
        clock.move(-ANSWER_KEPT)


def test_what_was_spent_by_a_clock_that_was_ahead_is_taken_up_no_longer_than_anything_else(
    database, pair, clock, service, passed, monkeypatch
):
    """From when the clock is back; it would be for as long as it was ahead."""
    envelope, signed = sealed_request(pair)
    passed[0] += ANSWER_KEPT
    clock.move(ANSWER_KEPT + BELIEVED_SECONDS)
    monkeypatch.setattr(custody, "open_request", opened(signed))
    assert asked(service, envelope) == LATER
    passed[0] += ANSWER_KEPT
    clock.move(ANSWER_KEPT - BELIEVED_SECONDS)
    taken_up = []
    monkeypatch.setattr(custody, "seal_response", away)
    for seconds, answer in ((0, LATER), (ANSWER_KEPT - 1, LATER), (1, TOO_LATE)):
        clock.move(seconds)
        passed[0] += seconds
        with monkeypatch.context() as instead:
            instead.setattr(service, "_start", lambda run: taken_up.append(run.close()))
            asyncio.run(service.settle())
        assert asked(service, envelope) == answer
    assert len(taken_up) == 1


def test_an_answer_of_a_clock_that_was_ahead_is_forgotten(
    database, clock, service, passed, envelope
):
    clock.move(BELIEVED_SECONDS)
    database.store_response(envelope.key_id, "granted", b"answer")
    clock.move(-BELIEVED_SECONDS)
    for seconds, kept in ((0, b"answer"), (ANSWER_KEPT - 1, b"answer"), (1, None)):
        clock.move(seconds)
        passed[0] += seconds
        swept(service)
        assert database.find_request(envelope.key_id).response == kept


def test_an_answer_is_not_given_and_not_refused_while_the_clock_has_leapt(
    database, clock, service, passed, envelope
):
    database.store_response(envelope.key_id, "granted", b"answer")
    clock.move(ANSWER_KEPT)
    assert asked(service, envelope) == Later("host-not-ready")
    clock.move(-ANSWER_KEPT)
    assert asked(service, envelope).response == b"answer"
    clock.move(ANSWER_KEPT)
    passed[0] += ANSWER_KEPT
    assert asked(service, envelope) == Rejected()


def test_what_is_spent_is_settled_whatever_suites_are_allowed_by_now(
    database, clock, service, passed, envelope, monkeypatch
):
    burned = []

    async def answer(*_):
        return b"answer"

    async def burn(_, pair):
        burned.append(pair.key_id)

    async def settle():
        await service.settle()
        await asyncio.gather(*service._tasks)

    monkeypatch.setattr(custody, "seal_response", answer)
    monkeypatch.setattr("host_agent.exchange.destroy_key", burn)
    service.parts = replace(service.parts, suites=frozenset())
    assert asked(service, envelope) == LATER
    clock.move(ANSWER_KEPT)
    passed[0] += ANSWER_KEPT
    asyncio.run(settle())
    assert burned == [envelope.key_id]
    assert database.find_request(envelope.key_id).outcome == "too-late"
    assert asked(service, envelope).response == b"answer"
    unspent = SoftwareKey()
    database.add_pairs([new_pair(unspent)])
    assert asked(service, sealed_request(unspent)[0]) == Rejected()


def test_a_pair_expires_as_time_goes_on_and_by_the_clock_at_the_start(database, clock, passed):
    last_day = database.clock() + 60
    database.add_pairs([new_pair(SoftwareKey(), not_after=last_day)])
    service = watched(database, passed)
    swept(service)
    for seconds in (30, LEAP_SECONDS):  # the server's own time goes on meanwhile
        clock.move(seconds)
        passed[0] += 30
        swept(service)
    assert [each.state for each in database.count()] == ["expired"]
    clock.move(7200)
    database.add_pairs([new_pair(SoftwareKey(), not_after=last_day + 60)])
    swept(watched(database, passed))
    assert [each.state for each in database.count()] == ["expired"]


def test_keys_are_destroyed_though_no_pair_can_be_accounted_for(database, clock, monkeypatch):
    database.add_pairs([new_pair(SoftwareKey(), not_after=database.clock() - 1)])
    with database.engine.begin() as connection:
        lift(connection)
        connection.exec_driver_sql("UPDATE audit SET number = 9223372036854775807")
    destroyed = []

    async def destroy():
        destroyed.append(database.keys_to_destroy())

    service = HostService(Parts(database, None, None, Leases(database), None))
    monkeypatch.setattr(service.sweep, "destroy_keys", destroy)
    asyncio.run(service.sweep.once())
    assert len(destroyed) == 1
    assert [each.state for each in database.count()] == ["valid"]


async def away(*_):
    raise TokenError("The HSM is away.")


def test_a_key_that_was_not_seen_is_looked_for_long_before_the_next_sweep(database, monkeypatch):
    monkeypatch.setattr(sweeping, "UNSEEN_SECONDS", 0)
    sweeps = asyncio.Queue()

    async def main():
        loop = asyncio.get_running_loop()
        told = partial(loop.call_soon_threadsafe, sweeps.put_nowait)
        monkeypatch.setattr(database, "expire", told)
        hsm = SimpleNamespace(serial=None, held=away)
        service = HostService(Parts(database, hsm, None, Leases(database), None))
        service.background.start("sweep", service.sweep.keep)
        for _ in range(2):
            await asyncio.wait_for(sweeps.get(), 10)
            service.sweep.key_unseen(0)
        await asyncio.wait_for(sweeps.get(), 10)
        await service.stop()

    asyncio.run(main())

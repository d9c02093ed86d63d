"""What nobody asks for any more is settled by the sweep, not only at the next start."""

import asyncio
from functools import partial
from types import SimpleNamespace

from sqlalchemy.exc import OperationalError

from carnet.errors import TokenError
from carnet.wire.keys import key_id_of
from host_agent import server
from host_agent.exchange import Parts
from host_agent.keydb import ANSWER_KEPT
from host_agent.leases import Leases
from tests.host.conftest import sealed_request


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

        def expire():
            calls.append("expire")
            if len(calls) == 1:
                raise OperationalError("", {}, Exception("database is locked"))
            loop.call_soon_threadsafe(swept_again.set)

        monkeypatch.setattr(database, "expire", expire)
        monkeypatch.setattr(server, "SWEEP_SECONDS", 0)
        hsm = SimpleNamespace(serial=None)
        service = server.HostService(Parts(database, hsm, None, Leases(database), None))
        service.background.start("sweep", service.sweep)
        await asyncio.wait_for(swept_again.wait(), 10)
        await service.stop()

    asyncio.run(main())
    assert len(calls) >= 2


async def away():
    raise TokenError("The HSM is away.")


def test_a_key_that_was_not_seen_is_looked_for_long_before_the_next_sweep(database, monkeypatch):
    monkeypatch.setattr(server, "UNSEEN_SECONDS", 0)
    sweeps = asyncio.Queue()

    async def main():
        loop = asyncio.get_running_loop()
        told = partial(loop.call_soon_threadsafe, sweeps.put_nowait, "a sweep")
        monkeypatch.setattr(database, "expire", told)
        hsm = SimpleNamespace(serial=None, held=away)
        service = server.HostService(Parts(database, hsm, None, Leases(database), None))
        service.background.start("sweep", service.sweep)
        for _ in range(2):
            await asyncio.wait_for(sweeps.get(), 10)
            service.key_unseen(0)
        await asyncio.wait_for(sweeps.get(), 10)
        await service.stop()

    asyncio.run(main())

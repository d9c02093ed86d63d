"""Nobody waits at Target for who writes, if he is answered by reading alone."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from carnet.database import transaction
from carnet.wire.control import TunnelGrant
from tests.target.conftest import end_of, name_of, until_established


def test_who_is_answered_by_reading_alone_waits_for_nobody_who_writes(
    with_agent, driver, engine, ask, monkeypatch
):
    """Though whoever waits for the lock, which another has, takes all of asyncio's threads."""

    async def body(agent):
        loop, prepares, prepare = asyncio.get_running_loop(), asyncio.Event(), agent.records.prepare
        known = ask()
        first = await agent.answer(known, "office")
        over = await agent.answer(ask(), "office")
        driver.comes_up(name_of(over))
        await until_established(agent, driver, over)
        driver.goes_down(name_of(over))
        told = await end_of(agent)
        loop.set_default_executor(ThreadPoolExecutor(1))
        with monkeypatch.context() as watched, transaction(engine):
            began = partial(loop.call_soon_threadsafe, prepares.set)
            watched.setattr(agent.records, "prepare", lambda *of: (began(), prepare(*of)))
            writer = asyncio.create_task(agent.answer(ask(), "office"))
            await prepares.wait()
            assert (await agent.answer(known, "office")).answer == first.answer
            assert await end_of(agent) == told
            assert (await agent.end_of("office", over.request_id, 20)).state == "ended"
            assert not writer.done()
        return await writer

    assert isinstance(with_agent(body).answer, TunnelGrant)

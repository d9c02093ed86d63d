"""Work beside a service's requests ends when the service does, and not otherwise."""

import asyncio

from carnet.background import Background


async def swallow(asked):
    """Turn being cancelled into a failure, as a library might."""
    asked.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ZeroDivisionError from None


def test_work_that_fails_at_being_cancelled_is_not_begun_anew():
    async def main():
        background, asked = Background(lambda _: None), asyncio.Event()
        background.start("work", lambda: swallow(asked))
        await asked.wait()
        await asyncio.wait_for(background.stop(), 20)
        assert background.failed == []

    asyncio.run(main())


def test_nothing_is_started_once_the_service_stops():
    async def main():
        background, asked = Background(lambda _: None), asyncio.Event()
        await background.stop()
        background.start("work", lambda: swallow(asked))
        await asyncio.sleep(0)
        assert not asked.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())

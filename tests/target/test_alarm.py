"""Moments of the day under a clock that is set: injected, since nobody sets this machine's."""

import asyncio
import time

import pytest

from target_agent import alarm
from target_agent.alarm import Alarm

HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """The time of day, which the test sets."""
    made = {"now": 1_900_000_000.0}
    monkeypatch.setattr(time, "time", lambda: made["now"])
    monkeypatch.setattr(alarm, "LOOK_SECONDS", 0.001)
    return made


def test_it_rings_when_the_clock_is_set_forward(clock):
    async def main():
        rang = asyncio.Event()
        Alarm(clock["now"] + HOUR, rang.set)
        clock["now"] += HOUR
        await asyncio.wait_for(rang.wait(), 30)

    asyncio.run(main())


def test_it_does_not_ring_before_its_moment_when_the_clock_is_set_back(clock):
    async def main():
        rang = asyncio.Event()
        Alarm(clock["now"] + 0.01, rang.set)
        clock["now"] -= HOUR
        # What counts the seconds that were left is due before this, whatever the machine's load.
        await asyncio.sleep(0.02)
        assert not rang.is_set()
        clock["now"] += 2 * HOUR
        await asyncio.wait_for(rang.wait(), 30)

    asyncio.run(main())


def test_one_that_is_cancelled_does_not_ring(clock):
    async def main():
        moment, off, on = clock["now"] + HOUR, asyncio.Event(), asyncio.Event()
        Alarm(moment, off.set).cancel()
        Alarm(moment, on.set)
        clock["now"] = moment
        await asyncio.wait_for(on.wait(), 30)
        assert not off.is_set()

    asyncio.run(main())

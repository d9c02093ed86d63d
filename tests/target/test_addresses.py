"""The pool of virtual addresses neither leaks nor hands one out twice, wherever Target dies."""

import asyncio

import pytest
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from lab.waiting import wait_until
from tests.target.conftest import name_of, running, until_established

POOL = 6


class Killed(BaseException):
    """The process would be dead by now: nothing after this place is done."""


@pytest.fixture
def die_at(monkeypatch):
    """Have whoever reaches this place do nothing more: die_at(place) -> an event."""

    def arm(place):
        died = asyncio.Event()
        loop = asyncio.get_running_loop()

        def reach(where):
            if where == place:
                loop.call_soon_threadsafe(died.set)
                raise Killed

        monkeypatch.setattr(crash, "reach", reach)
        return died

    return arm


async def ask_until_killed(agent, driver, ask, died):
    """Ask, and let IKE come; Target dies on the way."""
    try:
        driver.comes_up(name_of(await agent.answer(ask(), "office")))
    except Killed:
        return
    await died.wait()


async def end_until_killed(agent, driver, ask, arm):
    """Have a tunnel stand, and end it; Target dies on the way."""
    answering = await agent.answer(ask(), "office")
    driver.comes_up(name_of(answering))
    await until_established(agent, driver, answering)
    died = arm()
    with pytest.raises(Killed):
        await agent.end(answering.request_id, "revoked")
    await died.wait()


OF_A_TUNNEL = ["installed", "prepared", "confirmed", "secrets-forgotten", "established"]
OF_AN_END = ["removed", "ended", "doomed"]


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize("place", OF_A_TUNNEL + OF_AN_END)
def test_every_address_comes_back_and_none_is_had_twice(
    place, config, driver, engine, ask, die_at, monkeypatch
):
    def arm():
        return die_at(f"target.{place}")

    async def before():
        async with running(config, driver, engine) as agent:
            if place in OF_A_TUNNEL:
                await ask_until_killed(agent, driver, ask, arm())
            else:
                driver.refusals_to_remove += ["not now"] if place == "doomed" else []
                await end_until_killed(agent, driver, ask, arm)

    async def after():
        async with running(config, driver, engine) as agent:
            taken, size = agent.addresses[4]
            granted = [await agent.answer(ask(), "office") for _ in range(size - taken)]
            assert {each.outcome for each in granted} <= {"granted"}
            had = [record.virtual_address for record in agent.records.live()]
            assert len(had) == len(set(had)) == POOL
            for record in agent.records.live():
                await agent.end(record.request_id, "revoked")
            return agent.addresses

    asyncio.run(before())
    monkeypatch.undo()
    assert asyncio.run(after()) == {4: (0, POOL)}
    assert driver.specs == {}


def test_an_address_comes_back_with_the_sweep_where_the_daemon_did_not_let_go(
    with_agent, driver, ask, monkeypatch
):
    async def body(agent):
        def fail(*_):
            raise SQLAlchemyError("the disk is full")

        with monkeypatch.context() as failing:
            failing.setattr(agent.records, "prepare", fail)
            driver.refusals_to_remove += ["not now"]
            assert (await agent.answer(ask(), "office")).answer is None
        assert agent.addresses == {4: (1, POOL)}
        driver.close()  # it is watched anew, and swept
        back = {4: (0, POOL)}
        await asyncio.to_thread(wait_until, lambda: agent.addresses == back, "the address back")

    with_agent(body)
    assert driver.specs == {}

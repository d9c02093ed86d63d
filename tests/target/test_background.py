"""What a Target does beside its requests outlives mistakes that nobody expected."""

import asyncio
import threading

import pytest
from prometheus_client import generate_latest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from carnet import background
from carnet.errors import IPsecError
from lab.waiting import wait_until
from target_agent import agent as target
from target_agent import obeying, orders
from target_agent.agent import Ending
from target_agent.records import Records
from tests.observers import samples
from tests.target.conftest import end_of, name_of, until_established
from tests.target.fake_driver import FakeDriver


class FailingDriver(FakeDriver):
    """A driver of which one call fails once, in a way that nobody expected."""

    failing = None

    def _answer(self, call):
        super()._answer(call)
        if call == self.failing:
            self.failing = None
            raise ZeroDivisionError(call)


@pytest.fixture
def driver():
    return FailingDriver()


@pytest.fixture(autouse=True)
def _begun_anew_soon(monkeypatch):
    monkeypatch.setattr(background, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(target, "RESTART_SECONDS", 0.01)


@pytest.fixture(autouse=True)
def logs():
    with capture_logs() as captured:
        yield captured


def failures(agent, logs):
    """What was counted of failures, which must be what was logged, too."""
    shown = samples(generate_latest(agent.metrics.registry).decode())
    each = {key[1]: n for key, n in shown.items() if key[0].endswith("failures_total")}
    assert {"ike-watcher", "ike-daemon comparison", "orders", "tunnels"} <= each.keys()
    counted = {task: n for task, n in each.items() if n}
    logged = [each["task"] for each in logs if each["event"] == "task-failed"]
    assert counted == {task: logged.count(task) for task in logged}
    return counted


@pytest.mark.parametrize(
    ("failing", "named"), [("watch", "ike-watcher"), ("sweep", "ike-daemon comparison")]
)
def test_what_fails_is_logged_counted_and_begun_anew(with_agent, ask, driver, logs, failing, named):
    driver.failing = failing
    driver.specs["carnet-left-behind"] = None

    async def body(agent):
        await asyncio.to_thread(wait_until, lambda: driver.swept, "the sweep")
        answering = await agent.answer(ask(), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)
        assert failures(agent, logs) == {named: 1}
        assert agent.background.failed == []

    with_agent(body)
    assert driver.swept == ["carnet-left-behind"]


@pytest.mark.parametrize("failing", ["confirm", "forget_secrets"])
def test_a_tunnel_of_which_something_fails_is_ended(with_agent, ask, driver, logs, failing):
    driver.failing = failing

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        driver.comes_up(name_of(answering))
        assert (await end_of(agent)).reason == "failed"
        assert failures(agent, logs) == {"tunnels": 1}

    with_agent(body)
    assert not driver.specs


def test_an_end_that_fails_is_tried_again(with_agent, ask, driver, logs):
    driver.failing = "down"

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        assert await agent.end(answering.request_id, "revoked") is Ending.UNWRITTEN
        assert (await end_of(agent)).reason == "revoked"
        assert failures(agent, logs) == {"tunnels": 1}

    with_agent(body)
    assert not driver.specs


def test_a_record_that_is_not_written_is_said_once_and_that_it_is_too(
    with_agent, ask, driver, logs, monkeypatch
):
    """It is tried each second, for each tunnel, until somebody has made room on the disk."""
    times, real = [], Records.end

    def end(*about):
        times.append(about)
        if len(times) < 6:
            raise OperationalError("end", None, Exception("disk full\nmore"))
        real(*about)

    monkeypatch.setattr(Records, "end", end)

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        assert await agent.end(answering.request_id, "revoked") is Ending.UNRECORDED
        assert (await end_of(agent)).reason == "revoked"

    with_agent(body)
    said = [each for each in logs if "recorded" in each["event"]]
    assert [(each["event"], each.get("reason")) for each in said] == [
        ("not-recorded", "disk full"),
        ("recorded-again", None),
    ]
    assert not any("exc_info" in each for each in said)


def test_a_database_that_is_gone_is_no_fault_of_the_service_and_keeps_no_tunnel_up(
    with_agent, config, ask, driver, logs, monkeypatch
):
    """Else the service manager would kill who alone ends sessions at their time."""
    monkeypatch.setattr(obeying, "LOOK_SECONDS", 0.01)
    away = config.database.with_suffix(".away")

    def said():
        return [each["event"] for each in logs if each["event"].startswith("orders-")]

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        config.database.rename(away)
        try:
            await asyncio.to_thread(wait_until, said, "a look for orders")
            assert await agent.end(answering.request_id, "expired") is Ending.UNRECORDED
            assert driver.specs == {}
            assert agent.background.failed == []
        finally:
            away.rename(config.database)
        assert (await end_of(agent)).reason == "expired"
        await asyncio.to_thread(wait_until, lambda: len(said()) > 1, "the orders to be read")
        assert failures(agent, logs) == {}

    with_agent(body)
    assert said() == ["orders-unknown", "orders-known"]


def test_an_order_that_cannot_be_struck_out_keeps_no_other_from_being_obeyed(
    with_agent, ask, driver, monkeypatch
):
    monkeypatch.setattr(obeying, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(orders, "HEARD_SECONDS", 0)

    def fail(*_):
        raise OperationalError("obeyed", None, Exception("disk full"))

    monkeypatch.setattr(orders.Orders, "obeyed", fail)

    async def body(agent):
        answered = [await agent.answer(ask(), "office") for _ in range(2)]
        for each in answered:
            agent._parts.orders.write(each.request_id, None, "ended-by-operator")
        await asyncio.to_thread(wait_until, lambda: driver.specs == {}, "both to end")

    with_agent(body)


def test_a_daemon_that_lets_no_tunnel_go_is_said_once_for_each_reason(
    with_agent, ask, driver, logs
):
    driver.refusals_to_remove = ["Still."] * 3 + ["It is busy."] * 2

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        assert await agent.end(answering.request_id, "revoked") is Ending.WAITING
        assert (await end_of(agent)).reason == "revoked"

    with_agent(body)
    said = [each.get("reason") for each in logs if "removed" in each["event"]]
    assert said == ["It is busy.", "Still.", None]


def test_what_a_request_that_failed_left_in_the_daemon_is_swept(
    with_agent, ask, driver, monkeypatch
):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Records, "prepare", fail)

    async def body(agent):
        with pytest.raises(ZeroDivisionError):
            await agent.answer(ask(), "office")
        await asyncio.to_thread(wait_until, lambda: not agent.addresses[4][0], "its address")

    with_agent(body)
    assert driver.swept == [spec.name for spec in driver.installs]
    assert not driver.secrets


def test_what_could_not_be_withdrawn_is_swept_with_every_address(
    with_agent, ask, driver, monkeypatch
):
    """The record cannot be written, and the IKE daemon takes nothing back, two times."""
    real, refused, may_sweep = driver.down, [], threading.Event()
    real_sweep = driver.sweep

    def fail(*_):
        raise OperationalError("prepare", None, Exception("disk full"))

    def down(name):
        if len(refused) < 2:
            refused.append(name)
            raise IPsecError("The daemon does not take it; try again.")
        real(name)

    def sweep(keep):
        may_sweep.wait(20)
        return real_sweep(keep)

    monkeypatch.setattr(Records, "prepare", fail)
    monkeypatch.setattr(driver, "down", down)

    async def body(agent):
        monkeypatch.setattr(driver, "sweep", sweep)
        statement = ask()
        for _ in range(2):
            assert (await agent.answer(statement, "office")).deferred
        assert agent.addresses[4][0] == 2
        may_sweep.set()
        await asyncio.to_thread(wait_until, lambda: not agent.addresses[4][0], "both addresses")

    with_agent(body)
    assert not driver.secrets

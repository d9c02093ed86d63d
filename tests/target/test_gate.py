"""Sessions without IPsec: who opens the gate, for whom, and until when."""

import asyncio
import threading
import time

import msgspec
import pytest

from carnet.errors import IPsecError
from carnet.objectives import Objective
from carnet.wire.control import TunnelGrant
from target_agent import gate_watch
from target_agent.access import AccessEntry
from target_agent.config import GateSection
from target_agent.control import Operator, Order
from target_agent.firewall import Guarded, Opening, Seen, path
from target_agent.gate import LAST_SECONDS, Gate, make_gate
from target_agent.orders import Orders
from target_agent.records import Records
from tests.target.conftest import ALICE, HOUR, changed, end_of, name_of, until_established
from tests.target.fake_driver import FakeDriver
from tests.target.test_access import make_driver

GUARDED = Guarded(("eth0",), ("10.20.0.0/16",), (80,))


class FakeFirewall:
    """A packet filter that only remembers what is open."""

    def __init__(self):
        self.guarded = None
        self.open = ()
        self.refusals = 0
        self.made = threading.Event()

    def guard(self, guarded, openings):
        self._maybe_refuse()
        self.guarded, self.open = guarded, tuple(openings)
        self.made.set()

    def vanish(self):
        self.made.clear()
        self.guarded, self.open = None, ()

    def seen(self):
        rules = "" if self.guarded is None else "it stands"
        return Seen(rules, frozenset(path(each.source, each.network) for each in self.open))

    def changes(self):
        return None

    def open_only(self, openings):
        self._maybe_refuse()
        if self.guarded is None:
            raise IPsecError("There is no gate; make one.")
        self.open = tuple(openings)

    def _maybe_refuse(self):
        if self.refusals:
            self.refusals -= 1
            raise IPsecError("The fake packet filter refuses; ask it nicely.")


@pytest.fixture
def firewall():
    return FakeFirewall()


@pytest.fixture
def gate(firewall):
    return Gate(firewall, GUARDED)


@pytest.fixture
def native(config, members):
    """A configuration with a gate, and Alice's lines for it."""
    lines = ("10.20.0.0/16", "198.51.100.2/32")
    members.add(ALICE, [AccessEntry(Objective.NATIVE, line, 8 * HOUR) for line in lines])
    return msgspec.structs.replace(config, gate=GateSection(outside=("eth0",), ports=(80,)))


@pytest.fixture
def driver():
    return FakeDriver(objectives=tuple(Objective))


def asked(ask, **changes):
    drivers = (make_driver(objectives=(1, 2, 3, 4), modes=("tunnel", "transport")),)
    return ask(objective_id=1, drivers=drivers, **changes)


WORK = (("203.0.113.7", "10.20.0.0/16"),)


def paths(firewall):
    return tuple((each.source, each.network) for each in firewall.open)


def test_what_went_while_the_gate_was_made_is_not_taken_for_the_whole(firewall, monkeypatch):
    rules, at_once = ["a part", "the whole"], firewall.guard
    seen = ["nothing"]

    def guard(*given):
        at_once(*given)
        seen[0] = rules.pop(0) if rules else "the whole"

    monkeypatch.setattr(firewall, "guard", guard)
    monkeypatch.setattr(firewall, "seen", lambda: Seen(seen[0], frozenset()))
    gate = Gate(firewall, GUARDED)
    gate.shut()
    gate.restore()
    assert seen == ["the whole"]
    monkeypatch.setattr(firewall, "guard", None)
    gate.restore()


def test_a_session_that_ends_as_it_is_let_through_anew_leaves_nothing_open(
    with_agent, driver, ask, native, gate, firewall, monkeypatch
):
    is_late = threading.Event()

    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)
        loop, entered, at_once = asyncio.get_running_loop(), asyncio.Event(), gate.open

        def late(*given):
            loop.call_soon_threadsafe(entered.set)
            assert is_late.wait(30)
            at_once(*given)

        monkeypatch.setattr(gate, "open", late)
        agent._comparing.needed()
        await entered.wait()
        driver.goes_down(name_of(answering))
        await end_of(agent)
        is_late.set()
        async with agent._comparing.alone:
            assert firewall.open == ()

    with_agent(body, config=native, gate=gate)


def test_it_opens_when_ike_has_proved_the_address_and_closes_with_the_session(
    with_agent, driver, ask, native, gate, firewall
):
    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        assert isinstance(answering.answer, TunnelGrant)
        info = answering.answer.tunneling_info
        assert (info.mode, info.virtual_address) == ("transport", None)
        assert (info.esp_proposals, info.ah_proposals) == ((), ())
        assert firewall.open == ()
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)
        assert paths(firewall) == WORK
        assert {each.until for each in firewall.open} == {info.expires}
        driver.goes_down(name_of(answering))
        assert (await end_of(agent)).reason == "peer-closed"
        assert firewall.open == ()

    with_agent(body, config=native, gate=gate)
    assert firewall.guarded == GUARDED


def test_target_alone_is_its_own_address(with_agent, driver, ask, native, gate, firewall):
    async def body(agent):
        answering = await agent.answer(asked(ask, networks=()), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)
        assert paths(firewall) == (("203.0.113.7", "198.51.100.2/32"),)

    with_agent(body, config=native, gate=gate)


def test_a_session_that_stands_is_let_through_again_after_a_restart(
    with_agent, driver, ask, native, gate, firewall
):
    async def first(agent):
        answering = await agent.answer(asked(ask), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)

    with_agent(first, config=native, gate=gate)
    assert paths(firewall) == WORK

    async def second(agent):
        assert paths(firewall) == WORK

    with_agent(second, config=native, gate=Gate(firewall, GUARDED))


def test_a_session_that_ended_meanwhile_is_not(with_agent, driver, ask, native, gate, firewall):
    async def first(agent):
        answering = await agent.answer(asked(ask), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)

    with_agent(first, config=native, gate=gate)
    driver.up_names.clear()

    async def second(agent):
        assert (await end_of(agent)).reason == "restart"
        assert firewall.open == ()

    with_agent(second, config=native, gate=Gate(firewall, GUARDED))


def test_a_packet_filter_that_refuses_to_open_ends_the_session(
    with_agent, driver, ask, native, gate, firewall
):
    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        firewall.refusals = 1
        driver.comes_up(name_of(answering))
        assert (await end_of(agent)).reason == "not-confirmed"

    with_agent(body, config=native, gate=gate)


def test_a_packet_filter_that_refuses_to_close_is_asked_until_it_does(
    with_agent, driver, ask, native, gate, firewall
):
    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)
        firewall.refusals = 2
        driver.goes_down(name_of(answering))
        assert (await end_of(agent)).reason == "peer-closed"
        assert (firewall.refusals, firewall.open) == (0, ())

    with_agent(body, config=native, gate=gate)


def test_a_gate_that_is_gone_is_made_anew_for_the_sessions_that_stand(
    with_agent, driver, ask, native, gate, firewall, monkeypatch
):
    monkeypatch.setattr(gate_watch, "LOOK_SECONDS", 0.01)

    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)
        firewall.vanish()
        assert await asyncio.to_thread(firewall.made.wait, 20)
        assert (firewall.guarded, paths(firewall)) == (GUARDED, WORK)
        assert agent.metrics.registry.get_sample_value("carnet_target_gate_gone_total") == 1

    with_agent(body, config=native, gate=gate)


def test_a_gate_that_cannot_be_made_anew_fails_what_keeps_it(gate, firewall):
    gate.shut()
    firewall.vanish()
    firewall.refusals = 1
    with pytest.raises(IPsecError, match="refuses"):
        asyncio.run(gate_watch.keep_gate(gate))


def test_opening_one_that_is_gone_makes_it_anew(gate, firewall):
    gate.shut()
    gate.open("carnet-1", "203.0.113.7", ("10.20.0.0/16",), 9)
    firewall.vanish()
    gate.open("carnet-2", "203.0.113.8", ("10.20.0.0/16",), 9)
    assert firewall.guarded == GUARDED
    assert paths(firewall) == (*WORK, ("203.0.113.8", "10.20.0.0/16"))


def test_an_opening_that_is_missing_is_made_anew_unless_its_time_is_all_but_over(gate, firewall):
    gate.shut()
    gate.open("carnet-1", "203.0.113.7", ("10.20.0.0/16",), time.time() + LAST_SECONDS)
    gate.open("carnet-2", "203.0.113.8", ("10.20.0.0/16",), time.time() + HOUR)
    ending, standing = firewall.open
    firewall.open = (standing,)
    gate.restore()
    assert firewall.open == (standing,)
    firewall.open = ()
    gate.restore()
    assert firewall.open == (ending, standing)


def test_without_a_gate_nobody_gets_a_tunnel_without_ipsec(with_agent, ask, native):
    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        assert answering.answer.code == "cannot-carry"

    with_agent(body, config=msgspec.structs.replace(native, gate=None))


def test_where_the_service_does_not_run_the_operator_shuts_it_for_all(
    with_agent, driver, ask, native, gate, firewall, engine, monkeypatch
):
    async def body(agent):
        answering = await agent.answer(asked(ask), "office")
        driver.comes_up(name_of(answering))
        await until_established(agent, driver, answering)

    with_agent(body, config=native, gate=gate)
    monkeypatch.setattr("target_agent.control.make_gate", lambda _: Gate(firewall, GUARDED))
    operator = Operator(native, driver, Records(engine), Orders(engine))
    ended = operator.end(Order("user-removed", user_id=ALICE))
    assert len(ended) == 1
    assert firewall.open == ()


def test_openings_of_one_address_do_not_overlap(gate, firewall):
    gate.shut()
    gate.open("carnet-1", "203.0.113.7", ("10.20.0.0/24", "fd20::/64"), 9)
    gate.open("carnet-2", "203.0.113.7", ("10.20.0.0/16",), 9)
    gate.open("carnet-3", "fd77::2", ("10.20.0.0/16", "fd20::/64"), 9)
    assert paths(firewall) == (*WORK, ("fd77::2", "fd20::/64"))


def test_what_two_sessions_have_is_open_until_the_later_end_and_no_more(gate, firewall):
    gate.shut()
    gate.open("carnet-1", "203.0.113.7", ("10.20.0.0/16",), 5)
    gate.open("carnet-2", "203.0.113.7", ("10.20.0.0/17",), 9)
    gate.open("carnet-3", "203.0.113.8", ("10.20.0.0/17",), 5)
    assert firewall.open == (
        Opening("203.0.113.7", "10.20.0.0/17", 9),
        Opening("203.0.113.7", "10.20.128.0/17", 5),
        Opening("203.0.113.8", "10.20.0.0/17", 5),
    )


def test_the_configuration_says_what_is_guarded(native, config):
    assert make_gate(config) is None
    guarded = make_gate(changed(native, networks=("10.20.0.0/16",)))._guarded
    assert guarded == GUARDED

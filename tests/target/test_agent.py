"""The Target's table carried out: durable before visible, and once."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import pytest
from prometheus_client import generate_latest
from sqlalchemy.exc import IntegrityError, OperationalError

from carnet.audit import read
from carnet.audit.chain import ChangedError, follow
from carnet.database import transaction
from carnet.errors import DaemonSilentError, IPsecError
from carnet.exchange.target import State
from carnet.ipsec.driver import Change
from carnet.tunnel import tunnel_name
from carnet.wire import cbor
from carnet.wire.control import TunnelGrant, TunnelRefusal
from carnet.wire.fault import WireError
from carnet.wire.messages import RefusalCode
from carnet.wire.session_key import SessionBinding
from lab.waiting import wait_until
from target_agent import alarm, comparing, daemon_threads, live, reach
from target_agent.agent import Ending
from target_agent.happenings import merged
from target_agent.observed import observed
from target_agent.records import Asking, Records
from target_agent.schema import audit
from tests.observers import samples
from tests.target.conftest import (
    ALICE,
    HOUR,
    AskedInVain,
    changed,
    end_of,
    name_of,
    running,
    until_established,
)
from tests.unit.examples import EPHEMERAL, SoftwareKey


def events_of(engine):
    with transaction(engine) as connection:
        return [(each.event, each.facts) for each in read(connection, audit)]


def refusal_of(answering):
    assert isinstance(answering.answer, TunnelRefusal)
    return answering.answer.code


async def established(agent, driver, statement):
    answering = await agent.answer(statement, "office")
    driver.comes_up(name_of(answering))
    await until_established(agent, driver, answering)
    return answering


def test_a_member_gets_a_tunnel_that_only_she_can_open(with_agent, driver, ask):
    answering = with_agent(lambda agent: agent.answer(ask(), "office"))
    assert isinstance(answering.answer, TunnelGrant)
    binding = SessionBinding(
        request_id=answering.request_id, user_id=ALICE, target="work", objective_id=3
    )
    opened = EPHEMERAL.open(answering.answer.session_key, binding)
    (spec,) = driver.installs
    assert (spec.psk, spec.ppk) == (opened.psk, opened.ppk)
    assert spec.local_networks == ("10.20.0.0/16",)
    assert set(answering.timings) == {"step4", "step5"}


def test_userspace_esp_leads_where_target_has_an_address_alone(
    with_agent, driver, ask, monkeypatch
):
    has = ["127.0.0.1", "10.99.0.1"]
    monkeypatch.setattr(reach, "own_addresses", lambda: tuple(has))
    driver.userspace = True

    async def body(agent):
        refused = await agent.answer(ask(), "office")
        has.append("10.20.3.4")
        reached = await agent.answer(ask(), "office")
        has.clear()
        return refused, reached, await agent.answer(ask(), "office")

    refused, *reached = with_agent(body)
    assert refusal_of(refused) is RefusalCode.CANNOT_CARRY
    assert "no address of its own in 10.20.0.0/16" in refused.answer.reason
    assert all(isinstance(each.answer, TunnelGrant) for each in reached)
    assert len(driver.installs) == 2


def test_the_record_is_written_before_the_answer_and_has_no_secret(
    with_agent, driver, ask, engine, config
):
    answering = with_agent(lambda agent: agent.answer(ask(), "office"))
    record = Records(engine).find(answering.request_id)
    assert (record.state, record.answer) == ("prepared", cbor.pack(answering.answer))
    engine.dispose()
    (spec,) = driver.installs
    for file in config.directory.iterdir():
        assert spec.psk not in file.read_bytes()
        assert spec.ppk not in file.read_bytes()


def test_the_same_request_gets_the_same_answer_and_one_tunnel(with_agent, driver, ask):
    statement = ask()

    async def body(agent):
        return [await agent.answer(statement, "office") for _ in range(3)]

    answers = {cbor.pack(each.answer) for each in with_agent(body)}
    assert (len(answers), len(driver.installs)) == (1, 1)


def test_the_same_request_at_the_same_time_makes_one_tunnel(with_agent, driver, ask):
    statement = ask()

    async def body(agent):
        return await asyncio.gather(*(agent.answer(statement, "office") for _ in range(8)))

    answers = {cbor.pack(each.answer) for each in with_agent(body)}
    assert (len(answers), len(driver.installs)) == (1, 1)


def test_a_refusal_is_answered_again_as_it_was(with_agent, members, ask):
    statement = ask(user_id="mallory@office")

    async def body(agent):
        first = await agent.answer(statement, "office")
        members.add("mallory@office", [])
        return first, await agent.answer(statement, "office")

    first, again = with_agent(body)
    assert refusal_of(first) is RefusalCode.UNKNOWN_USER
    assert again.answer == first.answer


def test_other_evidence_under_a_request_id_is_refused_and_disturbs_nothing(with_agent, ask):
    statement = ask(request_id=bytes(16))
    other = ask(request_id=bytes(16), lifetime=60)

    async def body(agent):
        first = await agent.answer(statement, "office")
        refused = await agent.answer(other, "office")
        return first, refused, await agent.answer(statement, "office")

    first, refused, again = with_agent(body)
    assert refusal_of(refused) is RefusalCode.EVIDENCE
    assert again.answer == first.answer


def test_a_pair_that_was_used_opens_no_second_tunnel(with_agent, driver, ask):
    """As a Host asks that has forgotten, or two Hosts do that have the same pairs."""
    pair = SoftwareKey()
    statement = ask(pair)

    async def body(agent):
        first = await agent.answer(statement, "office")
        await agent.end(first.request_id, "revoked")
        refused = await agent.answer(ask(pair, request_id=bytes(16)), "office")
        return first, refused, await agent.answer(ask(pair, request_id=bytes(16)), "office")

    first, *refused = with_agent(body)
    for each in refused:
        assert refusal_of(each) is RefusalCode.EVIDENCE
        assert first.request_id.hex() in each.answer.reason
    assert len(driver.installs) == 1


def test_another_host_is_not_told_for_which_request_a_pair_was_used(with_agent, ask):
    pair = SoftwareKey()

    async def body(agent):
        first = await agent.answer(ask(pair), "office")
        return first, await agent.answer(ask(pair), "elsewhere")

    first, refused = with_agent(body)
    assert refusal_of(refused) is RefusalCode.EVIDENCE
    assert first.request_id.hex() not in refused.answer.reason


def test_a_pair_that_is_used_twice_at_once_opens_one_tunnel(with_agent, driver, ask):
    pair, both = SoftwareKey(), threading.Barrier(2, timeout=20)
    driver.before_install = both.wait

    async def body(agent):
        statements = [ask(pair), ask(pair)]
        answers = [agent.answer(each, "office") for each in statements]
        answered = await asyncio.gather(*answers)
        (put_off,) = [s for s, a in zip(statements, answered, strict=True) if a.deferred]
        assert agent.addresses[4][0] == len(driver.specs) == 1
        return await agent.answer(put_off, "office")

    assert refusal_of(with_agent(body)) is RefusalCode.EVIDENCE


@pytest.mark.parametrize("host", ["elsewhere", "office.example"])
def test_a_host_may_not_speak_for_another_hosts_user(with_agent, driver, ask, engine, host):
    answering = with_agent(lambda agent: agent.answer(ask(), host))
    assert refusal_of(answering) is RefusalCode.EVIDENCE
    assert not driver.installs
    assert Records(engine).find(answering.request_id) is None
    assert events_of(engine)[-1][0] == "tunnel-refused"


def test_a_host_may_not_speak_for_someone_else_than_signed(with_agent, ask):
    statement = ask()
    lying = type(statement)(**{**as_fields(statement), "user_id": "bob@office"})
    answering = with_agent(lambda agent: agent.answer(lying, "office"))
    assert refusal_of(answering) is RefusalCode.EVIDENCE


def test_a_signature_by_another_key_is_refused(with_agent, ask):
    statement = ask()
    fields = as_fields(statement) | {"public_key": SoftwareKey().public_key}
    answering = with_agent(lambda agent: agent.answer(type(statement)(**fields), "office"))
    assert refusal_of(answering) is RefusalCode.EVIDENCE


def test_evidence_that_is_no_request_is_not_understood(with_agent, ask, engine):
    statement = ask()
    fields = as_fields(statement) | {"evidence": b"\x80"}

    async def body(agent):
        with pytest.raises(WireError):
            await agent.answer(type(statement)(**fields), "office")

    with_agent(body)
    assert not Records(engine).all()


def as_fields(statement):
    return {name: getattr(statement, name) for name in statement.__struct_fields__}


def test_a_daemon_that_is_down_defers_and_nothing_is_recorded(with_agent, driver, ask, engine):
    statement = ask()

    async def body(agent):
        driver.running = False
        deferred = await agent.answer(statement, "office")
        recorded = Records(engine).all()
        driver.running = True
        return deferred, recorded, await agent.answer(statement, "office")

    deferred, recorded, granted = with_agent(body)
    assert deferred.answer is None
    assert deferred.deferred
    assert recorded == []
    assert isinstance(granted.answer, TunnelGrant)


def test_nothing_is_prepared_while_nobody_hears_what_the_daemon_does(
    with_agent, driver, ask, monkeypatch
):
    """As in the second after it has started: the tunnel could come up and go unheard."""

    def unheard():
        raise IPsecError("It does not let itself be watched; try again.")

    async def body(agent):
        statement = ask()
        with monkeypatch.context() as patch:
            patch.setattr(driver, "watch", unheard)
            driver.close()
            await until(lambda: not agent._parts.watched.is_set(), "the end of the watch")
            with monkeypatch.context() as impatient:
                impatient.setattr("target_agent.answering.WATCHED_SECONDS", 0.05)
                deferred = await agent.answer(statement, "office")
            assert (bool(deferred.deferred), driver.installs) == (True, [])
            waiting = asyncio.create_task(agent.answer(statement, "office"))
            await asyncio.sleep(0)
        return await waiting

    assert isinstance(with_agent(body).answer, TunnelGrant)
    assert len(driver.installs) == 1


def test_a_daemon_that_fails_at_the_install_gives_the_address_back(
    with_agent, driver, ask, config, monkeypatch
):
    monkeypatch.setattr(comparing, "AGAIN_SECONDS", 0.01)

    def fail():
        driver.running = False

    async def body(agent):
        driver.before_install = fail
        for _ in range(2):
            assert (await agent.answer(ask(), "office")).answer is None
            driver.running = True
            await until(lambda: not agent.addresses[4][0], "the comparison")
        driver.before_install = lambda: None
        return await agent.answer(ask(), "office")

    one_address = changed(config, virtual_addresses="10.99.0.9/32")
    assert isinstance(with_agent(body, config=one_address).answer, TunnelGrant)


def test_what_a_failed_install_left_is_swept_before_its_address_is_anybody_s(
    with_agent, driver, ask, monkeypatch
):
    """As a daemon does that was stopped: it goes on, and carries out what it was told before."""
    monkeypatch.setattr(comparing, "AGAIN_SECONDS", 0.01)
    install, status, silent = driver.install, driver.status, threading.Event()

    def in_vain(spec):
        install(spec)
        silent.set()
        driver.refusals_to_remove = ["It takes over 10 seconds."] * 10_000
        raise IPsecError("It takes over 10 seconds.")

    def looked_at():
        if silent.is_set():
            raise IPsecError("It takes over 10 seconds.")
        return status()

    async def body(agent):
        monkeypatch.setattr(driver, "install", in_vain)
        monkeypatch.setattr(driver, "status", looked_at)
        deferred = await agent.answer(ask(), "office")
        assert (bool(deferred.deferred), len(driver.specs)) == (True, 1)
        monkeypatch.setattr(driver, "install", install)
        assert agent.addresses[4][0] == 1
        driver.refusals_to_remove = []
        silent.clear()
        await until(lambda: not agent.addresses[4][0], "the sweep")
        return deferred

    assert driver.swept == [name_of(with_agent(body))]
    assert (driver.specs, driver.secrets) == ({}, set())


@pytest.mark.parametrize(
    "error",
    [IntegrityError("INSERT", {}, ValueError("disk full")), ChangedError("None can follow.")],
)
def test_a_record_that_cannot_be_written_takes_the_tunnel_back(
    with_agent, driver, ask, monkeypatch, error
):
    def fail(*_):
        raise error

    async def body(agent):
        monkeypatch.setattr(agent.records, "prepare", fail)
        return await agent.answer(ask(), "office")

    answering = with_agent(body)
    assert answering.answer is None
    assert len(driver.installs) == 1
    assert driver.specs == {}


def test_no_address_is_handed_out_twice(with_agent, driver, ask):
    async def body(agent):
        return [await agent.answer(ask(), "office") for _ in range(7)]

    *granted, refused = with_agent(body)
    assert len({spec.virtual_address for spec in driver.installs}) == len(granted) == 6
    assert refusal_of(refused) is RefusalCode.NO_ADDRESS


def test_the_database_refuses_a_second_live_tunnel_on_an_address(with_agent, ask, engine):
    statement = ask()

    async def body(agent):
        return await agent.answer(statement, "office")

    answering = with_agent(body)
    other = type(answering.request)(**{**as_fields(answering.request), "request_id": bytes(16)})
    with pytest.raises(IntegrityError):
        Records(engine).prepare(Asking(ask(), "office"), other, answering.answer, (), "fake")


def test_a_tunnel_that_came_up_is_confirmed_and_its_secrets_forgotten(
    with_agent, driver, ask, engine
):
    answering = with_agent(lambda agent: established(agent, driver, ask()))
    assert driver.secrets == set()
    assert name_of(answering) in driver.specs
    assert driver.calls.index("confirm") < driver.calls.index("forget_secrets")
    assert events_of(engine)[-1][0] == "tunnel-established"


async def until(holds, what):
    await asyncio.to_thread(wait_until, holds, what)


async def standing(agent, driver, statement):
    """Have a tunnel stand whose Client may come back: its secrets are not forgotten."""
    answering = await agent.answer(statement, "office")
    driver.comes_up(name_of(answering))
    records = agent.records
    await until(lambda: records.find(answering.request_id).state == "established", "it to stand")
    return answering


def test_a_client_that_was_silent_comes_back_and_is_compared_again(with_agent, driver, ask, config):
    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        driver.comes_up(name_of(answering))
        await until(lambda: driver.calls.count("confirm") == 2, "another look")
        assert driver.secrets == {name_of(answering)}
        await agent.end(answering.request_id, "operator")
        return await end_of(agent)

    assert with_agent(body, config=changed(config, resume_within=60)).reason == "operator"
    assert (driver.specs, driver.secrets) == ({}, set())


def test_a_client_that_comes_back_with_less_than_agreed_is_ended(with_agent, driver, ask, config):
    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        driver.less_than_agreed.add(name_of(answering))
        driver.comes_up(name_of(answering))
        return await end_of(agent)

    assert with_agent(body, config=changed(config, resume_within=60)).reason == "not-confirmed"


def test_a_client_that_comes_back_to_take_leave_is_not_taken_for_another(
    with_agent, driver, ask, config
):
    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        driver.tell(name_of(answering), Change.UP)  # and it is gone before anybody looks
        return await end_of(agent)

    assert with_agent(body, config=changed(config, resume_within=60)).reason == "peer-closed"


def test_a_silent_client_is_not_waited_for_whose_keys_somebody_had_the_daemon_unload(
    with_agent, driver, ask, config, monkeypatch
):
    """Nothing tells of that, and who stands is left to stand."""
    monkeypatch.setattr(comparing, "AGAIN_SECONDS", 0)

    async def body(agent):
        unloaded, kept, stands = [await standing(agent, driver, ask()) for _ in range(3)]
        for each in (unloaded, stands):
            driver.secrets.discard(name_of(each))
        for each in (kept, unloaded):
            driver.falls_silent(name_of(each))
        ended = await end_of(agent)
        assert (ended.request_id, ended.reason) == (unloaded.request_id, "unloaded")
        return {agent.records.find(each.request_id).state for each in (kept, stands)}

    assert with_agent(body, config=changed(config, resume_within=60)) == {"established"}


def test_a_client_that_is_silent_for_too_long_is_not_waited_for(with_agent, driver, ask, config):
    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        return await end_of(agent)

    assert with_agent(body, config=changed(config, resume_within=1)).reason == "peer-lost"
    assert (driver.specs, driver.secrets) == ({}, set())


def test_a_client_that_may_not_come_back_is_not_waited_for(with_agent, driver, ask):
    async def body(agent):
        answering = await established(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        return await end_of(agent)

    assert with_agent(body).reason == "peer-lost"


def test_a_restarted_target_knows_of_no_client_that_is_away(with_agent, driver, ask, config):
    """She may have ended it meanwhile, and nobody saw that."""
    config = changed(config, resume_within=60)
    with_agent(lambda agent: standing(agent, driver, ask()), config=config)
    driver.up_names.clear()
    assert with_agent(end_of, config=config).reason == "restart"
    assert (driver.specs, driver.secrets) == ({}, set())


def test_a_daemon_that_is_watched_again_keeps_who_is_away(with_agent, driver, ask, config):
    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        await until(lambda: agent._live[answering.request_id].is_away, "her silence to be seen")
        looks = driver.calls.count("sweep")
        driver.close()
        await until(lambda: driver.calls.count("sweep") > looks, "another comparison")
        return agent.records.find(answering.request_id).state

    assert with_agent(body, config=changed(config, resume_within=60)) == "established"


UP, ANEW, DOWN, LOST = Change.UP, Change.ANEW, Change.DOWN, Change.LOST


@pytest.mark.parametrize(
    ("happens", "waits"),
    [
        ([UP, UP, UP], UP),
        ([UP, LOST, UP], UP),
        ([UP, LOST, UP, LOST], LOST),
        ([UP, DOWN, UP, LOST, DOWN], DOWN),
        ([ANEW, ANEW], ANEW),
        ([ANEW, UP, ANEW], UP),
        ([ANEW, LOST, ANEW, UP], UP),
        ([ANEW, LOST, ANEW], LOST),
        ([ANEW, DOWN, ANEW], DOWN),
    ],
)
def test_of_what_happens_again_and_again_the_outcome_waits(happens, waits):
    assert reduce(merged, happens, None) is waits


def test_a_client_who_comes_anew_before_she_was_looked_at_has_her_tunnel(with_agent, driver, ask):
    """As after a crash, while this stood still: nothing of the first one is to be seen any more."""

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        for happens in (driver.comes_up, driver.falls_silent, driver.comes_up):
            happens(name_of(answering))
        await until_established(agent, driver, answering)

    with_agent(body)


def test_a_client_who_is_lost_again_as_she_is_looked_at_may_come_back(
    with_agent, driver, ask, config
):
    """What came up and is gone is not looked at: that would be taken for her end of it."""
    looking, go_on, confirm = threading.Event(), threading.Event(), driver.confirm

    def slowly(spec):
        status = confirm(spec)
        looking.set()
        assert go_on.wait(20)
        return status

    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.confirm = slowly
        driver.comes_up(name_of(answering))
        assert await asyncio.to_thread(looking.wait, 20)
        driver.comes_up(name_of(answering))
        driver.falls_silent(name_of(answering))
        await until(driver.watches[-1].empty, "both to be heard of")
        go_on.set()
        await until(lambda: agent.events == 0, "both to be fed")
        return agent._live[answering.request_id].is_away

    assert with_agent(body, config=changed(config, resume_within=60))


def test_an_end_overtakes_whatever_its_client_negotiates(with_agent, driver, ask, config):
    """However often that is, and however long it takes to look at what came up."""
    looking, go_on, confirm = threading.Event(), threading.Event(), driver.confirm

    def slowly(spec):
        looking.set()
        assert go_on.wait(20)
        return confirm(spec)

    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.confirm, driver.calls = slowly, []
        driver.comes_up(name_of(answering))
        assert await asyncio.to_thread(looking.wait, 20)
        for _ in range(100):
            driver.comes_up(name_of(answering))
        await until(driver.watches[-1].empty, "all of it to be heard of")
        assert agent.events <= 2
        ending = asyncio.create_task(agent.end(answering.request_id, "revoked"))
        await asyncio.sleep(0)
        go_on.set()
        assert await ending is Ending.DONE

    with_agent(body, config=changed(config, resume_within=60))
    assert driver.calls.count("confirm") == 1


def test_a_tunnel_that_is_rekeyed_to_less_is_ended(with_agent, driver, ask, config):
    """As long as it is what was agreed, it is looked at alone, and nothing else is asked."""

    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.calls.clear()
        driver.changes(name_of(answering))
        await until(lambda: agent.events == 0 and driver.calls, "a look")
        assert driver.calls == ["refuse_many", "confirm"]
        assert answering.request_id in agent._live
        driver.less_than_agreed.add(name_of(answering))
        driver.changes(name_of(answering))
        return await end_of(agent)

    assert with_agent(body, config=changed(config, resume_within=60)).reason == "not-confirmed"


def silent_at_first(driver, call, times=2):
    """Have the daemon be silent when it is asked that for the next times."""
    answers, silences = getattr(driver, call), [DaemonSilentError("It is silent.")] * times

    def ask(about):
        if silences:
            raise silences.pop()
        return answers(about)

    setattr(driver, call, ask)


@pytest.mark.parametrize(
    ("call", "answered"),
    [
        ("refuse_many", ["refuse_many", "confirm"]),
        ("confirm", ["refuse_many"] * 3 + ["confirm"]),
    ],
)
def test_a_daemon_that_is_silent_as_a_tunnel_is_rekeyed_ends_none(
    with_agent, driver, ask, config, monkeypatch, call, answered
):
    monkeypatch.setattr(live, "LOOK_AGAIN_SECONDS", 0.01)

    async def body(agent):
        answering = await standing(agent, driver, ask())
        silent_at_first(driver, call)
        driver.calls = []
        driver.changes(name_of(answering))
        await until(lambda: driver.calls == answered, "the daemon to answer")
        return agent.records.find(answering.request_id).state

    assert with_agent(body, config=changed(config, resume_within=60)) == "established"


def test_a_daemon_that_is_silent_as_a_client_comes_back_ends_none(
    with_agent, driver, ask, config, monkeypatch
):
    monkeypatch.setattr(live, "LOOK_AGAIN_SECONDS", 0.01)

    async def body(agent):
        answering = await standing(agent, driver, ask())
        driver.falls_silent(name_of(answering))
        await until(lambda: agent._live[answering.request_id].is_away, "her silence to be seen")
        silent_at_first(driver, "confirm")
        driver.calls = []
        driver.comes_up(name_of(answering))
        await until(lambda: "confirm" in driver.calls, "the daemon to answer")
        return agent._live[answering.request_id]

    exchange = with_agent(body, config=changed(config, resume_within=60))
    assert (exchange.state, exchange.is_away) == (State.ESTABLISHED, False)


@pytest.mark.parametrize("call", ["confirm", "forget_secrets"])
def test_a_daemon_that_is_silent_as_a_tunnel_comes_up_is_asked_again(
    with_agent, driver, ask, monkeypatch, call
):
    monkeypatch.setattr(live, "LOOK_AGAIN_SECONDS", 0.01)
    silent_at_first(driver, call)
    answering = with_agent(lambda agent: established(agent, driver, ask()))
    assert driver.secrets == set()
    assert name_of(answering) in driver.up_names


def test_a_tunnel_that_no_daemon_confirms_in_time_is_ended(
    with_agent, driver, ask, config, monkeypatch
):
    monkeypatch.setattr(live, "LOOK_AGAIN_SECONDS", 0.01)
    silent_at_first(driver, "confirm", 10_000)

    async def body(agent):
        answering = await agent.answer(ask(), "office")
        driver.comes_up(name_of(answering))
        return await end_of(agent)

    assert with_agent(body, config=changed(config, initiate_within=1)).reason == "unused"
    assert driver.specs == {}


async def unused(agent, driver, statement):
    """Have a tunnel of which nothing stands yet."""
    return await agent.answer(statement, "office")


async def silent(agent, driver, statement):
    """Have one that stood, and whose Client may come back."""
    answering = await standing(agent, driver, statement)
    driver.falls_silent(name_of(answering))
    await until(lambda: agent._live[answering.request_id].is_away, "her silence to be seen")
    return answering


@pytest.mark.parametrize("before", [unused, silent])
def test_what_comes_up_piece_by_piece_may_lack_something_and_not_be_too_much(
    with_agent, driver, ask, config, before
):
    async def body(agent):
        answering = await before(agent, driver, ask())
        driver.calls.clear()
        driver.changes(name_of(answering))
        await until(lambda: agent.events == 0 and driver.calls, "a look")
        assert driver.calls == ["refuse_many"]
        driver.too_many.add(name_of(answering))
        driver.changes(name_of(answering))
        return await end_of(agent)

    assert with_agent(body, config=changed(config, resume_within=60)).reason == "not-confirmed"


def test_a_tunnel_that_is_less_than_agreed_is_ended(with_agent, driver, ask):
    async def body(agent):
        answering = await agent.answer(ask(), "office")
        driver.less_than_agreed.add(name_of(answering))
        driver.comes_up(name_of(answering))
        return await end_of(agent)

    assert with_agent(body).reason == "not-confirmed"
    assert driver.specs == {}


def test_a_tunnel_that_nobody_initiates_is_withdrawn(with_agent, driver, ask, config):
    statement = ask()

    async def body(agent):
        first = await agent.answer(statement, "office")
        ended = await end_of(agent)
        return first, ended, await agent.answer(statement, "office")

    first, ended, again = with_agent(body, config=changed(config, initiate_within=1))
    assert (ended.request_id, ended.reason) == (first.request_id, "unused")
    assert (driver.specs, driver.secrets) == ({}, set())
    assert refusal_of(again) is RefusalCode.TOO_LATE


def test_a_session_ends_when_its_time_is_over(with_agent, driver, ask):
    async def body(agent):
        await established(agent, driver, ask(lifetime=4))
        return await end_of(agent)

    assert with_agent(body).reason == "expired"
    assert driver.specs == {}


def test_a_session_ends_in_time_when_the_clock_is_set_or_the_machine_has_slept(
    with_agent, driver, ask, monkeypatch
):
    """Both look the same to an event loop: the time of day is suddenly another one."""
    monkeypatch.setattr(alarm, "LOOK_SECONDS", 0.01)

    async def body(agent):
        answering = await established(agent, driver, ask(lifetime=2 * HOUR))
        monkeypatch.setattr(time, "time", lambda now=time.time: now() + 2 * HOUR)
        return answering, await end_of(agent)

    answering, ended = with_agent(body)
    assert (ended.request_id, ended.reason) == (answering.request_id, "expired")
    assert driver.specs == {}


def test_a_tunnel_that_the_peer_closes_is_accounted(with_agent, driver, ask, engine):
    async def body(agent):
        answering = await established(agent, driver, ask())
        driver.goes_down(name_of(answering))
        return answering, await end_of(agent)

    answering, ended = with_agent(body)
    assert (ended.number, ended.request_id) == (1, answering.request_id)
    assert ended.reason == "peer-closed"
    event, facts = events_of(engine)[-1]
    assert event == "tunnel-ended"
    assert (facts["request_id"], facts["reason"]) == (answering.request_id, "peer-closed")


def test_a_host_is_told_of_its_own_tunnels_only(with_agent, ask, members):
    members.add("carol@branch", members.find(ALICE).entries)

    async def body(agent):
        await agent.answer(ask(), "office")
        answering = await agent.answer(ask(user_id="carol@branch"), "branch")
        assert await agent.end(answering.request_id, "revoked", host="office") is Ending.NOT_LIVE
        assert await agent.end(answering.request_id, "revoked", host="branch") is Ending.DONE
        branch = await agent.ended("branch", 0, 20)
        return agent.records.ended_after("office", 0), branch

    office, branch = with_agent(body)
    assert office == ()
    assert [each.reason for each in branch] == ["revoked"]


def test_a_user_who_is_removed_loses_the_tunnel_that_is_just_being_made(
    with_agent, driver, ask, members
):
    entered, go_on = threading.Event(), threading.Event()

    def stop_and_wait():
        entered.set()
        assert go_on.wait(20)

    async def body(agent):
        driver.before_install = stop_and_wait
        answering = asyncio.create_task(agent.answer(ask(), "office"))
        await asyncio.to_thread(entered.wait, 20)
        members.remove(ALICE)
        ending = asyncio.create_task(agent.end_all_of(ALICE, "user-removed"))
        await asyncio.sleep(0)
        go_on.set()
        return (await answering).request_id, await ending

    request_id, endings = with_agent(body)
    assert endings == {request_id: Ending.DONE}
    assert driver.specs == {}


def test_all_of_a_user_s_tunnels_wait_for_a_silent_daemon_together(
    with_agent, driver, ask, monkeypatch
):
    """The first few, and then all others, however many there are and few asyncio's threads."""
    monkeypatch.setattr(daemon_threads, "AT_ONCE", 2)
    monkeypatch.setattr(live, "REMOVE_AGAIN_SECONDS", HOUR)

    async def body(agent):
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        ids = {(await agent.answer(ask(), "office")).request_id for _ in range(5)}
        first, others = AskedInVain(2), AskedInVain(3)
        answers = iter([first, first])

        def silent(name):
            next(answers, others)(name)

        down, driver.down = driver.down, silent
        endings = await agent.end_all_of(ALICE, "user-removed")
        assert first.by_all.is_set()
        assert others.by_all.is_set()
        driver.down = down
        assert endings == dict.fromkeys(ids, Ending.WAITING)

    with_agent(body)


def test_an_end_waits_for_no_peers_of_others_that_are_silent(with_agent, driver, ask, config):
    """Each is waited for so long that whoever is revoked would be told too late."""
    several, go_on, down = threading.Barrier(21, timeout=20), threading.Event(), driver.down

    async def body(agent):
        *others, revoked = [(await agent.answer(ask(), "office")).request_id for _ in range(21)]

        def in_vain(name):
            if name != tunnel_name(revoked):
                several.wait()
                assert go_on.wait(20)
            down(name)

        driver.down = in_vain
        ends = [asyncio.create_task(agent.end(each, "expired")) for each in others]
        await asyncio.to_thread(several.wait)
        assert await agent.end(revoked, "revoked") is Ending.DONE
        go_on.set()
        assert await asyncio.gather(*ends) == [Ending.DONE] * 20

    with_agent(body, config=changed(config, virtual_addresses="10.99.0.0/24"))


def test_nobody_else_waits_for_a_daemon_that_does_not_end_tunnels(with_agent, driver, ask, engine):
    """Not the other users, nor the database, nor whoever looks whether Target is ready."""
    ending, go_on, down = threading.Event(), threading.Event(), driver.down

    def silently(name):
        ending.set()
        assert go_on.wait(20)
        down(name)

    async def body(agent):
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        ids = [(await agent.answer(ask(), "office")).request_id for _ in range(3)]
        driver.down = silently
        ends = [asyncio.create_task(agent.end(each, "revoked")) for each in ids]
        assert await asyncio.to_thread(ending.wait, 20)
        assert (await agent.answer(ask(), "office")).outcome == "granted"
        ready = await observed(agent, engine).readiness.look()
        assert ready == {"database": None, "ike-daemon": None}
        go_on.set()
        assert await asyncio.gather(*ends) == [Ending.DONE] * 3

    with_agent(body)


def test_a_daemon_that_restarts_loses_its_tunnels_and_takes_new_ones(with_agent, driver, ask):
    async def body(agent):
        standing = await established(agent, driver, ask())
        prepared = await agent.answer(ask(), "office")
        driver.crashes()
        assert (await agent.answer(ask(), "office")).answer is None
        driver.starts()
        ended = {}
        while len(ended) < 2:
            for each in await agent.ended("office", len(ended), 20):
                ended[each.request_id] = each.reason
        assert ended == dict.fromkeys(
            (standing.request_id, prepared.request_id), "ike-daemon-restarted"
        )
        return await established(agent, driver, ask())

    assert name_of(with_agent(body)) in driver.specs


@pytest.mark.parametrize("fed", [False, True])
def test_a_tunnel_that_the_daemon_ends_as_it_stops_was_not_closed_by_its_peer(
    with_agent, driver, ask, fed
):
    """It tells of that as of what a peer closes, and nothing can be taken out of it any more."""

    async def body(agent):
        answering = await established(agent, driver, ask())
        driver.running = False
        driver.goes_down(name_of(answering))
        if fed:
            find = agent.records.find
            await until(lambda: find(answering.request_id).end_reason, "what is to end")
        driver.crashes()
        # Sooner it would be a daemon that has lost nothing, as far as the agent knows.
        await until(lambda: not agent._watched.is_set(), "the daemon's end to be heard of")
        driver.starts()
        return await end_of(agent)

    assert with_agent(body).reason == "ike-daemon-restarted"


def test_a_tunnel_that_the_daemon_loses_as_it_is_recorded_ends(
    with_agent, driver, ask, monkeypatch
):
    """The daemon goes after it has confirmed the tunnel, and is back before that is recorded."""
    recording, go_on = threading.Event(), threading.Event()

    async def body(agent):
        establish = agent.records.establish

        def late(request_id):
            recording.set()
            assert go_on.wait(20)
            establish(request_id)

        monkeypatch.setattr(agent.records, "establish", late)
        answering = await agent.answer(ask(), "office")
        driver.comes_up(name_of(answering))
        assert await asyncio.to_thread(recording.wait, 20)
        looks = driver.calls.count("installed")
        driver.crashes()
        driver.starts()
        await until(lambda: driver.calls.count("installed") > looks, "the comparison")
        go_on.set()
        return await end_of(agent)

    assert with_agent(body).reason == "ike-daemon-restarted"


def test_what_cannot_be_removed_ends_when_the_daemon_is_back(with_agent, driver, ask):
    async def body(agent):
        answering = await established(agent, driver, ask())
        driver.crashes()
        ending = await agent.end(answering.request_id, "revoked")
        state = agent.records.find(answering.request_id).state
        driver.starts()
        return ending, state, await end_of(agent)

    ending, state, ended = with_agent(body)
    assert (ending, state, ended.reason) == (Ending.WAITING, "established", "revoked")


def test_a_tunnel_that_is_just_being_ended_is_not_said_to_live(
    with_agent, driver, ask, monkeypatch
):
    """However little who asks for its end would wait."""
    ending, go_on, down = threading.Event(), threading.Event(), driver.down

    def slowly(name):
        ending.set()
        assert go_on.wait(20)
        down(name)

    async def body(agent):
        answering = await established(agent, driver, ask())
        lives = await agent.end_of("office", answering.request_id, 0)
        monkeypatch.setattr(driver, "down", slowly)
        end = asyncio.create_task(agent.end(answering.request_id, "revoked"))
        assert await asyncio.to_thread(ending.wait, 20)
        told = asyncio.create_task(agent.end_of("office", answering.request_id, 0))
        strangers = await agent.end_of("branch", answering.request_id, 0)
        go_on.set()
        await end
        return lives, strangers, (await told).end_reason

    assert with_agent(body) == (None, None, "revoked")


def test_a_removal_that_the_daemon_refuses_is_tried_again(with_agent, driver, ask):
    async def body(agent):
        answering = await established(agent, driver, ask())
        driver.refusals_to_remove = ["The address is still leased.", "Still."]
        driver.goes_down(name_of(answering))
        return await end_of(agent)

    assert with_agent(body).reason == "peer-closed"
    assert driver.specs == {}


def test_an_end_that_the_daemon_put_off_survives_a_restart(with_agent, driver, ask, engine):
    """The operator was told that it ends: no restart may take it for a tunnel that stands."""
    statement = ask()

    async def before(agent):
        answering = await established(agent, driver, statement)
        driver.refusals_to_remove = ["It is busy."] * 10_000
        ending = await agent.end(answering.request_id, "revoked")
        return ending, answering, await agent.answer(statement, "office")

    ending, answering, again = with_agent(before)
    assert (ending, refusal_of(again)) == (Ending.WAITING, RefusalCode.TOO_LATE)
    driver.refusals_to_remove = []
    ended = with_agent(end_of)
    assert (ended.request_id, ended.reason) == (answering.request_id, "revoked")
    assert driver.specs == {}
    assert [event for event, _ in events_of(engine)][-3:] == [
        "tunnel-ending",
        "tunnel-refused",
        "tunnel-ended",
    ]


def test_each_silence_of_the_daemon_is_counted(with_agent, driver, ask, monkeypatch):
    monkeypatch.setattr(live, "REMOVE_AGAIN_SECONDS", HOUR)

    def silent(*_):
        raise DaemonSilentError("It takes over 10 seconds.")

    async def body(agent):
        def count():
            shown = samples(generate_latest(agent.metrics.registry).decode())
            return shown["carnet_target_ike_daemon_errors_total",]

        answering = await established(agent, driver, ask())
        assert count() == 0
        for call in ("capabilities", "status", "down"):
            monkeypatch.setattr(driver, call, silent)
        assert (await agent.answer(ask(), "office")).deferred
        assert count() == 1
        await agent.end(answering.request_id, "revoked")
        assert count() == 2
        agent._comparing.needed()
        await until(lambda: count() == 3, "the comparison's to be counted")

    with_agent(body)


def test_what_is_owed_to_a_silent_daemon_keeps_no_agent_from_stopping(
    with_agent, driver, ask, monkeypatch
):
    """However soon it would be tried again: the next start does that."""
    monkeypatch.setattr(live, "REMOVE_AGAIN_SECONDS", 0)
    down = driver.down

    async def before(agent):
        answering = await established(agent, driver, ask())
        monkeypatch.setattr(driver, "down", AskedInVain(1))
        assert await agent.end(answering.request_id, "revoked") is Ending.WAITING
        return answering

    answering = with_agent(before)
    monkeypatch.setattr(driver, "down", down)
    ended = with_agent(end_of)
    assert (ended.request_id, ended.reason) == (answering.request_id, "revoked")


def test_what_is_to_end_at_the_start_ends_side_by_side(with_agent, driver, ask, monkeypatch):
    """Each may wait for a silent peer, and a service manager waits for a start only so long."""
    several, down = threading.Barrier(3, timeout=10), driver.down

    async def before(agent):
        for _ in range(3):
            answering = await established(agent, driver, ask())
            agent.records.doom(answering.request_id, "user-removed")

    def together(name):
        several.wait()
        down(name)

    async def after(agent):
        assert agent.records.live() == []

    with_agent(before)
    monkeypatch.setattr(driver, "down", together)
    with_agent(after)


def test_a_restart_takes_up_what_the_daemon_still_has(with_agent, driver, ask):
    async def before(agent):
        lost = await established(agent, driver, ask())
        kept = await established(agent, driver, ask())
        waiting = await agent.answer(ask(), "office")
        return lost, kept, waiting

    lost, kept, waiting = with_agent(before)
    driver.down(name_of(lost))

    async def after(agent):
        ended = await end_of(agent)
        driver.comes_up(name_of(waiting))
        await until_established(agent, driver, waiting)
        driver.goes_down(name_of(kept))
        return ended, await end_of(agent, after=ended.number)

    first, second = with_agent(after)
    assert (first.request_id, first.reason) == (lost.request_id, "restart")
    assert (second.request_id, second.reason) == (kept.request_id, "peer-closed")


def test_what_waits_in_vain_after_a_restart_ends_at_once(with_agent, driver, ask):
    waiting = with_agent(lambda agent: agent.answer(ask(), "office"))
    driver.down(name_of(waiting))
    ended = with_agent(end_of)
    assert (ended.request_id, ended.reason) == (waiting.request_id, "restart")


def fill_disk(monkeypatch, write):
    """Have no record of that kind be written until there is room; return what makes room."""
    room, real = threading.Event(), getattr(Records, write)

    def take(*about):
        if not room.is_set():
            raise OperationalError("update", None, Exception("disk full"))
        real(*about)

    monkeypatch.setattr(Records, write, take)
    return room.set


@pytest.mark.parametrize(
    ("heard", "told"), [("revoked", "revoked"), ("peer-closed", "restart"), (None, "restart")]
)
def test_why_a_session_was_meant_to_end_counts_though_a_restart_found_it_gone(
    with_agent, driver, ask, monkeypatch, heard, told
):
    """Its end was told to a service that could not write it down, and was started anew."""
    answering = with_agent(lambda agent: established(agent, driver, ask()))
    driver.down(name_of(answering))
    make_room = fill_disk(monkeypatch, "end")

    async def body(agent):
        if heard is not None:
            assert await agent.end(answering.request_id, heard) is Ending.UNRECORDED
        make_room()
        return await end_of(agent)

    assert with_agent(body).reason == told


def test_an_end_that_is_written_down_is_for_the_reason_that_was(with_agent, driver, ask):
    answering = with_agent(lambda agent: established(agent, driver, ask()))
    driver.down(name_of(answering))
    driver.refusals_to_remove = ["It is busy."] * 10_000

    async def body(agent):
        find = agent.records.find
        await until(lambda: find(answering.request_id).end_reason, "what is to end")
        assert await agent.end(answering.request_id, "revoked") is Ending.WAITING
        driver.refusals_to_remove = []
        return await end_of(agent)

    assert with_agent(body).reason == "restart"


def test_who_has_a_tunnel_ended_hears_whether_a_restart_would_forget_it(
    with_agent, driver, ask, monkeypatch
):
    make_room = fill_disk(monkeypatch, "doom")

    async def body(agent):
        answering = await established(agent, driver, ask())
        driver.refusals_to_remove = ["It is busy."] * 10_000
        assert await agent.end(answering.request_id, "revoked") is Ending.UNWRITTEN
        make_room()
        assert await agent.end(answering.request_id, "revoked") is Ending.WAITING

    with_agent(body)


def test_a_tunnel_that_came_up_while_target_was_away_is_taken_up(with_agent, driver, ask):
    answering = with_agent(lambda agent: agent.answer(ask(), "office"))
    driver.comes_up(name_of(answering))
    with_agent(lambda agent: until_established(agent, driver, answering))
    assert driver.secrets == set()


def test_what_a_busy_daemon_did_not_let_be_compared_is_compared_again(
    with_agent, driver, ask, monkeypatch
):
    """It is watched all the while, and so does not come back."""
    monkeypatch.setattr(comparing, "AGAIN_SECONDS", 0.01)
    came_up = with_agent(lambda agent: agent.answer(ask(), "office"))
    lost = with_agent(lambda agent: established(agent, driver, ask()))
    driver.comes_up(name_of(came_up))
    driver.down(name_of(lost))
    status, busy = driver.status, iter([True])

    def answer():
        if next(busy, False):
            raise IPsecError("It takes over 10 seconds.")
        return status()

    monkeypatch.setattr(driver, "status", answer)

    async def body(agent):
        await until_established(agent, driver, came_up)
        return await end_of(agent)

    ended = with_agent(body)
    assert (ended.request_id, ended.reason) == (lost.request_id, "restart")


def test_a_tunnel_without_a_record_is_swept_at_the_start(with_agent, driver, ask, engine, config):
    statement = ask()

    async def crash_after_install():
        async with running(config, driver, engine) as agent:
            agent.records.prepare = None  # as if it had died there
            with pytest.raises(TypeError):
                await agent.answer(statement, "office")

    asyncio.run(crash_after_install())
    assert len(driver.specs) == 1
    answering = with_agent(lambda agent: agent.answer(statement, "office"))
    assert len(driver.swept) == 1
    assert list(driver.specs) == [tunnel_name(answering.request_id)]
    assert driver.installs[0].psk != driver.installs[1].psk


def test_a_tunnel_that_is_prepared_while_it_is_swept_stays(with_agent, driver, ask, monkeypatch):
    """Whatever else is in the daemon is swept, just as the tunnel is being prepared."""
    swept, real_sweep = threading.Event(), driver.sweep

    async def body(agent):
        def sweep(keep):
            asking = asyncio.run_coroutine_threadsafe(agent.answer(ask(), "office"), loop)
            assert asking.result(20).outcome == "granted"
            done = real_sweep(keep)
            swept.set()
            return done

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(driver, "sweep", sweep)
        driver.specs["carnet-left-behind"] = None
        driver.close()  # it is watched anew, and swept
        assert await asyncio.to_thread(swept.wait, 20)
        (record,) = agent.records.live()
        async with agent._comparing.alone:
            assert list(driver.specs) == [tunnel_name(record.request_id)]
            assert agent.records.find(record.request_id).state == "prepared"

    with_agent(body)


def test_a_start_without_a_daemon_waits_for_it(with_agent, driver, ask):
    answering = with_agent(lambda agent: established(agent, driver, ask()))
    driver.crashes()

    async def body(agent):
        assert agent.records.find(answering.request_id).state == "established"
        driver.starts()
        return await end_of(agent)

    assert with_agent(body).request_id == answering.request_id


def test_the_accounts_are_whole(with_agent, driver, ask, engine):
    async def body(agent):
        answering = await established(agent, driver, ask())
        await agent.answer(ask(user_id="mallory@office"), "office")
        await agent.end(answering.request_id, "revoked")

    with_agent(body)
    with transaction(engine) as connection:
        assert all(link.holds for link in follow(connection, audit))
    assert [event for event, _ in events_of(engine)] == [
        "access-granted",
        "tunnel-prepared",
        "tunnel-established",
        "tunnel-refused",
        "tunnel-ended",
    ]

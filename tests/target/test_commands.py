"""The command `carnet-target`: configuration, users, tunnels and accounts."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest
from click.testing import CliRunner
from msgspec import structs
from structlog.testing import capture_logs

from carnet import observers
from carnet import service as services
from carnet.database import opened_database, transaction
from carnet.errors import (
    CarnetError,
    IPsecError,
    NothingLeftError,
    TunnelLeftError,
    UnreachableError,
    UsageError,
)
from carnet.ipsec.drivers import IMPLEMENTATIONS, DriverName
from carnet.ipsec.libreswan import Libreswan
from carnet.tunnel import tunnel_name
from carnet.units import render
from carnet.wire.control import TunnelGrant
from carnet.wire.documents import AccountsHead, read_unverified
from carnet.wire.messages import RefusalCode
from lab.waiting import wait_until
from target_agent import cli, control, obeying, orders, reach, schema, service
from target_agent import control_socket as orders_door
from target_agent.commands import tunnels as tunnels_command
from target_agent.commands import users as users_command
from target_agent.config import load
from target_agent.control import Operator, Order, sole_hold
from target_agent.control_socket import control_socket
from target_agent.evidence import claimed_request_id
from target_agent.heads import head_keeper
from target_agent.orders import Orders
from target_agent.proposals import PROFILES, Profile
from target_agent.records import Records
from tests.target.certificates import Authority
from tests.target.conftest import ALICE, AskedInVain, free_port, running
from tests.target.fake_driver import FakeDriver

GRANT = ["--objective", "esp", "--network", "10.20.0.0/16", "--lifetime", "8h"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "carnet" / "target.toml"


@pytest.fixture
def run(path, driver, monkeypatch):
    """Run the command in this process: run("users", "list") -> what it prints."""
    for module in (tunnels_command, users_command):
        monkeypatch.setattr(module, "make_driver", lambda _: driver)

    def run(*arguments):
        result = CliRunner().invoke(
            cli.cli, ["--config", str(path), *arguments], catch_exceptions=False,
            standalone_mode=False,
        )  # fmt: skip
        return result.stdout

    return run


@pytest.fixture
def target(run, path, tmp_path, monkeypatch):
    """Return the configuration of a Target that was set up by its own command."""
    run("init", "--address", "203.0.113.2")
    text = path.read_text().replace("/var/lib/carnet-target", "data")
    path.write_text(
        text.replace("8471", str(free_port()))
        .replace('listen = "0.0.0.0"', 'listen = "127.0.0.1"')
        .replace("block = true", "block = false")
        .replace('# driver = "strongswan" or "libreswan"', 'driver = "strongswan"')
        .replace('# socket = "/run/charon.vici"', f'socket = "{tmp_path}/charon.vici"')
    )
    for name in IMPLEMENTATIONS:
        install(monkeypatch, name, "/nowhere")
    return load(path)


def install(monkeypatch, name, *programs):
    """Have the daemon of an implementation be there, and nowhere else."""
    row = structs.replace(IMPLEMENTATIONS[name], programs=programs)
    monkeypatch.setitem(IMPLEMENTATIONS, name, row)


def refused(run, *arguments):
    with pytest.raises(CarnetError) as caught:
        run(*arguments)
    return caught.value


def test_init_writes_a_private_file_that_can_be_loaded(run, path):
    said = run("init", "--name", "lab", "--address", "203.0.113.2", "--network", "10.9.0.0/16")
    config = load(path)
    assert (config.name, config.tunnels.addresses) == ("lab", ("203.0.113.2",))
    assert config.tunnels.networks == ("10.9.0.0/16",)
    assert config.tunnels.proposals == PROFILES[Profile.MODERN]
    assert config.gate is None
    assert config.link.key == path.parent / "link.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "users add" in said


def test_init_does_not_overwrite(run, path):
    run("init")
    before = path.read_bytes()
    assert isinstance(refused(run, "init"), UsageError)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("dns = []", "dns = []\ndsn = []", "unknown key `dsn`"),
        ('"10.99.0.0/24"', '"10.99.0.1/24"', "host bits"),
        ('"10.99.0.0/24"', '"2001:db8::/64"', "virtual addresses of that version"),
        ('profile = "modern"', 'profile = "paper"', "insecure_benchmark_suites"),
        ('profile = "modern"', 'profile = "best"', "'best'"),
        ("# esp_proposals = [", 'esp_proposals = ["null-sha256"] # [', "null protect nobody"),
        (
            "# esp_proposals = [",
            'insecure_benchmark_suites = true\nesp_proposals = ["aes256ctr-x25519"] # [',
            "ESP aes256ctr-x25519 without integrity",
        ),
        ("# ah_proposals = [", 'ah_proposals = ["aes256-sha256"] # [', "sha256 with encryption"),
        ('"203.0.113.2"', '"gateway"', "gateway"),
        ("suites = [", 'suites = ["rsa", ', "`suites` names rsa twice"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(target, path, old, new, what):
    assert target.name == "work"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError) as caught:
        load(path)
    assert what in caught.value.sentence
    assert "line " in caught.value.sentence


@pytest.mark.usefixtures("target")
def test_users_are_added_listed_and_removed(run):
    run("users", "add", ALICE, *GRANT)
    run("users", "add", ALICE, "--objective", "ah", "--network", "10.20.3.0/24", "--lifetime", "1h")
    (listed,) = json.loads(run("users", "list", "--json"))
    assert listed["access"] == [
        {"objective": "ah", "network": "10.20.3.0/24", "lifetime": 3600},
        {"objective": "esp", "network": "10.20.0.0/16", "lifetime": 28800},
    ]
    assert ALICE in run("users", "list")
    run("users", "remove", ALICE)
    assert json.loads(run("users", "list", "--json")) == []
    assert "not a member" in refused(run, "users", "remove", ALICE).sentence


@pytest.mark.usefixtures("target")
def test_what_is_not_behind_target_cannot_be_granted(run):
    wider = [*GRANT[:3], "10.0.0.0/8", *GRANT[4:]]
    assert "not behind work" in refused(run, "users", "add", ALICE, *wider).sentence


@pytest.mark.usefixtures("target")
def test_what_userspace_esp_does_not_reach_cannot_be_granted_for_it(run, driver, monkeypatch):
    monkeypatch.setattr(reach, "own_addresses", lambda: ("10.20.0.1",))
    driver.userspace = True
    part = [*GRANT[:3], "10.20.7.0/24", *GRANT[4:]]
    assert "no address in 10.20.7.0/24" in refused(run, "users", "add", ALICE, *part).sentence
    run("users", "add", ALICE, *GRANT)
    driver.userspace = False
    run("users", "add", ALICE, *part)
    driver.userspace, driver.running = True, False
    run("users", "add", ALICE, *part)


@pytest.mark.parametrize(
    "arguments",
    [
        ("alice", *GRANT),
        (ALICE, *GRANT[:-1], "8 hours"),
        (ALICE, *GRANT[:-1], "400d"),
        (ALICE, "--objective", "tls", *GRANT[2:]),
        (ALICE, *GRANT[:3], "10.20.0.1/16", *GRANT[4:]),
    ],
)
@pytest.mark.usefixtures("target")
def test_what_cannot_be_understood_is_a_usage_error(path, arguments):
    result = CliRunner().invoke(cli.cli, ["--config", str(path), "users", "add", *arguments])
    assert result.exit_code == 2
    assert "Error: Invalid value" in result.output


@pytest.fixture
def answered(target, driver, run, ask):
    """Return the Request ID of a tunnel that was prepared before the service stopped."""
    run("users", "add", ALICE, *GRANT)

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                answering = await agent.answer(ask(), "office")
                await agent.answer(ask(lifetime=86400), "office")
        return answering.request_id

    return asyncio.run(main())


def test_tunnels_are_listed(answered, run):
    (listed,) = json.loads(run("tunnels", "list", "--json"))
    assert listed["request_id"] == answered.hex()
    assert (listed["state"], listed["virtual_address"]) == ("prepared", "10.99.0.1")
    assert len(json.loads(run("tunnels", "list", "--all", "--json"))) == 2
    assert "10.99.0.1" in run("tunnels", "list")


@pytest.mark.parametrize("silent", ["neither", "strongswan", "libreswan"])
def test_each_tunnel_is_listed_by_the_driver_that_made_it(
    path, target, driver, ask, run, silent, monkeypatch
):
    """Whatever the configuration says by now; a daemon that is silent hides none of another's."""
    run("users", "add", ALICE, *GRANT)
    driver.name, other = "strongswan", FakeDriver()
    monkeypatch.setattr(Libreswan, "status", lambda _: other.status())

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                made = [(await agent.answer(ask(), "office")).request_id for _ in range(2)]
            with transaction(engine) as writing:
                at_other = schema.tunnels.c.request_id == made[1]
                writing.execute(schema.tunnels.update().where(at_other).values(driver="libreswan"))
            return made

    by = dict(zip(("strongswan", "libreswan"), asyncio.run(main()), strict=True))
    for name, daemon in (("strongswan", driver), ("libreswan", other)):
        daemon.specs = dict(driver.specs)
        daemon.up_names = {tunnel_name(by[name])}
        daemon.running = name != silent
    command = ["--config", str(path), "tunnels", "list", "--json"]
    done = CliRunner().invoke(cli.cli, command, catch_exceptions=False)
    shown = {each["request_id"] for each in json.loads(done.stdout) if each["live"]}
    assert shown == {request_id.hex() for name, request_id in by.items() if name != silent}
    assert done.stderr.count("What is up cannot be told") == (silent != "neither")


@pytest.mark.parametrize("by", ["request", "user", "removal"])
def test_a_tunnel_is_ended_without_the_service(answered, run, driver, by):
    arguments = {
        "request": ("tunnels", "end", answered.hex()),
        "user": ("tunnels", "end", ALICE),
        "removal": ("users", "remove", ALICE),
    }[by]
    run(*arguments)
    assert driver.specs == {}
    ended = json.loads(run("tunnels", "list", "--all", "--json"))[0]
    reason = "user-removed" if by == "removal" else "ended-by-operator"
    assert (ended["state"], ended["end_reason"]) == ("ended", reason)
    assert "No such tunnel" in refused(run, "tunnels", "end", answered.hex()).sentence


def test_a_tunnel_is_not_called_ended_while_the_daemon_does_not_answer(answered, run, driver):
    driver.running = False
    assert isinstance(refused(run, "tunnels", "end", answered.hex()), IPsecError)
    assert json.loads(run("tunnels", "list", "--json"))


@pytest.mark.parametrize(("daemon", "unit"), [("strongswan", "strongswan"), ("libreswan", "ipsec")])
def test_what_could_not_be_ended_without_the_service_ends_as_it_starts(
    answered, run, target, driver, daemon, unit
):
    driver.comes_up(tunnel_name(answered))
    driver.running = False
    driver.name = daemon
    said = refused(run, "users", "remove", ALICE).sentence
    assert said == (
        "alice@office is no member any more, but the IKE daemon does not answer, or refuses; 1 of"
        " the tunnels will end as soon as it does what it is asked: start it, or restart it if it"
        " runs (systemctl restart"
        f" {unit}), and start carnet-target after it."
    )
    assert json.loads(run("users", "list", "--json")) == []
    driver.running = True

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                return await agent.ended("office", 0, 20)

    assert [each.reason for each in asyncio.run(main())] == ["user-removed"]
    assert driver.specs == {}


def test_all_of_a_user_s_tunnels_wait_for_a_silent_daemon_together(run, target, driver, ask):
    """It falls silent at the second; however many they are, they take one time limit."""
    run("users", "add", ALICE, *GRANT)

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                return [(await agent.answer(ask(), "office")).request_id for _ in range(5)]

    prepared = asyncio.run(main())
    others = AskedInVain(3)
    answers = iter([driver.down, AskedInVain(1)])

    def down(name):
        next(answers, others)(name)

    driver.down = down
    assert "; 4 of the tunnels will end" in refused(run, "users", "remove", ALICE).sentence
    assert others.by_all.is_set()
    with opened_database(target.database, "target_agent") as engine:
        records = Records(engine)
        owed = {(each.request_id, each.end_reason) for each in records.live()}
        (ended,) = (each for each in prepared if records.find(each).state == "ended")
    assert owed == {(each, "user-removed") for each in prepared if each != ended}


def test_no_tunnel_waits_for_another_s_silent_peer_without_the_service(run, target, driver, ask):
    run("users", "add", ALICE, *GRANT)

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                return [await agent.answer(ask(), "office") for _ in range(5)]

    prepared, together, down = asyncio.run(main()), threading.Barrier(5), driver.down
    driver.down = lambda name: (together.wait(20), down(name))
    assert f"tunnels ended: {len(prepared)}." in run("users", "remove", ALICE)
    assert driver.specs == {}


@pytest.mark.parametrize("kind", [NothingLeftError, TunnelLeftError])
def test_a_tunnel_is_ended_without_service_and_daemons_by_the_driver_that_made_it(
    answered, run, target, driver, kind, monkeypatch
):
    """Whatever the configuration says by now; it ended if nothing of it is in the kernel."""
    with opened_database(target.database, "target_agent") as engine:
        assert Records(engine).find(answered).driver == driver.name
        with transaction(engine) as writing:
            writing.execute(schema.tunnels.update().values(driver="libreswan"))
    asked = []

    def down(_, name):
        asked.append(name)
        raise kind("There is no daemon.")

    monkeypatch.setattr(Libreswan, "down", down)
    if kind is NothingLeftError:
        assert answered.hex() in run("tunnels", "end", answered.hex())
    else:
        said = refused(run, "tunnels", "end", answered.hex()).sentence
        assert "(systemctl restart ipsec)" in said
    assert asked == [tunnel_name(answered)]
    (record,) = json.loads(run("tunnels", "list", "--all", "--json"))[:1]
    assert record["state"] == ("ended" if kind is NothingLeftError else "prepared")


def test_a_service_with_another_driver_ends_what_stands_by_the_one_that_made_it(
    answered, target, driver, monkeypatch
):
    asked = []
    monkeypatch.setattr(Libreswan, "down", lambda _, name: asked.append(name))
    driver.specs.clear()

    async def main(engine):
        async with running(target, driver, engine) as agent:
            return await agent.ended("office", 0, 20)

    with opened_database(target.database, "target_agent") as engine:
        with transaction(engine) as writing:
            writing.execute(schema.tunnels.update().values(driver="libreswan"))
        (ended,) = asyncio.run(main(engine))
    assert (ended.request_id, asked) == (answered, [tunnel_name(answered)])


@pytest.mark.parametrize("is_served", [True, False])
@pytest.mark.parametrize("at_fault", [None, "strongswan", "libreswan"])
def test_a_tunnel_whose_record_names_no_driver_is_ended_at_every_daemon(
    answered, run, target, driver, is_served, at_fault, monkeypatch
):
    """As one that an older version has written; it ended where none may have it any more."""
    driver.name, asked, ours = "strongswan", [], driver.down
    install(monkeypatch, DriverName.LIBRESWAN, "/")

    def down(which, name):
        asked.append((which, name))
        if which == at_fault:
            raise TunnelLeftError("There is no daemon.")
        raise NothingLeftError("There is no daemon.")

    driver.down = lambda name: (ours(name), down("strongswan", name))
    monkeypatch.setattr(Libreswan, "down", lambda _, name: down("libreswan", name))
    with opened_database(target.database, "target_agent") as engine, transaction(engine) as writing:
        writing.execute(schema.tunnels.update().values(driver=None))
    ending = partial(run if at_fault is None else partial(refused, run), "tunnels", "end")

    async def main():
        async with served(target, driver, is_there=is_served):
            await asyncio.to_thread(ending, answered.hex())

    asyncio.run(main())
    assert {*asked} == {(each, tunnel_name(answered)) for each in ("strongswan", "libreswan")}
    (record,) = json.loads(run("tunnels", "list", "--all", "--json"))[:1]
    assert record["state"] == ("prepared" if at_fault else "ended")


def test_a_tunnel_that_stands_is_ended_though_no_record_says_that_it_lives(
    answered, run, target, driver
):
    """As where the database's log was cut, or an older file put in its place."""
    with opened_database(target.database, "target_agent") as engine:
        Records(engine).end(answered, "restart")
    assert answered.hex() in run("tunnels", "end", answered.hex())
    assert driver.specs == {}
    assert "No such tunnel" in refused(run, "tunnels", "end", answered.hex()).sentence


@pytest.mark.parametrize("by", ["request_id", "user_id"])
def test_a_tunnel_is_ended_through_the_service(answered, target, driver, by):
    order = Order("ended-by-operator", **{by: {"request_id": answered.hex(), "user_id": ALICE}[by]})
    written = []

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            operator = Operator(target, driver, Records(engine), Orders(engine))
            down = driver.down

            def after_a_look(name):
                written.extend(each.end_reason for each in operator.records.live())
                down(name)

            driver.down = after_a_look
            with sole_hold(target.lock) as alone:
                assert alone
                async with (
                    running(target, driver, engine) as agent,
                    control_socket(agent, target.control_socket),
                ):
                    mode = stat.S_IMODE(target.control_socket.stat().st_mode)
                    ended = await asyncio.to_thread(operator.end, order)
                    heard = await agent.ended("office", 0, 20)
            return mode, ended, heard

    mode, ended, heard = asyncio.run(main())
    assert (mode, ended) == (0o600, (answered.hex(),))
    assert [each.reason for each in heard] == ["ended-by-operator"]
    assert driver.specs == {}
    assert written == ["ended-by-operator"], "the order, when the IKE daemon is asked"


def test_a_tunnel_ends_at_once_though_another_process_has_the_databases_lock(
    answered, target, driver, monkeypatch
):
    """The order is written down as soon as it can be, and struck out."""
    monkeypatch.setattr(control, "_WRITE_SECONDS", 0)
    order, down, went = Order("ended-by-operator", user_id=ALICE), driver.down, threading.Event()

    def told(name):
        down(name)
        went.set()

    async def main(engine, other):
        operator = Operator(target, driver, Records(engine), Orders(engine))
        async with (
            running(target, driver, engine) as agent,
            control_socket(agent, target.control_socket),
        ):
            with transaction(other):
                ending = asyncio.create_task(asyncio.to_thread(operator.end, order))
                assert await asyncio.to_thread(went.wait, 10)
            return await ending, operator.orders.unheard()

    monkeypatch.setattr(driver, "down", told)
    with (
        opened_database(target.database, "target_agent") as engine,
        opened_database(target.database, "target_agent") as other,
        sole_hold(target.lock),
    ):
        assert asyncio.run(main(engine, other)) == ((answered.hex(),), [])


@contextlib.asynccontextmanager
async def served(target, driver, *, is_there=True):
    """Have the service run, or not; gives its agent."""
    if not is_there:
        yield None
        return
    with opened_database(target.database, "target_agent") as engine, sole_hold(target.lock):
        async with (
            running(target, driver, engine) as agent,
            control_socket(agent, target.control_socket),
        ):
            yield agent


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("is_served", [True, False])
def test_a_removed_user_s_tunnel_ends_before_the_database_is_free(
    run, path, target, driver, is_served, monkeypatch
):
    monkeypatch.setattr(control, "_WRITE_SECONDS", 0)
    went, down = threading.Event(), driver.down
    monkeypatch.setattr(driver, "down", lambda name: (down(name), went.set()))
    command = ["--config", str(path), "users", "remove", ALICE]

    async def main():
        async with served(target, driver, is_there=is_served):
            with (
                opened_database(target.database, "target_agent") as other,
                transaction(other),
            ):
                removing = asyncio.create_task(
                    asyncio.to_thread(CliRunner().invoke, cli.cli, command, catch_exceptions=False)
                )
                assert await asyncio.to_thread(went.wait, 10)
            return await removing

    done = asyncio.run(main())
    assert "alice@office is removed as soon as it lets go, and her tunnels are ended" in done.stderr
    assert "no member any more; tunnels ended: 1." in done.stdout
    assert json.loads(run("users", "list", "--json")) == []
    (record,) = json.loads(run("tunnels", "list", "--all", "--json"))[:1]
    assert (record["state"], record["end_reason"]) == ("ended", "user-removed")


_BY_ITS_NAME = "the IKE daemon has no such tunnel any more, and no record says so"
_BY_SERVICE = "the service ended 1 of the tunnels that are meant, and no record may say so"


@pytest.mark.parametrize(
    ("command", "is_served", "how"),
    [
        (("tunnels", "end", "{}"), False, _BY_ITS_NAME),
        (("tunnels", "end", "{}"), True, _BY_SERVICE),
        (("users", "remove", ALICE), True, _BY_SERVICE),
        (("users", "remove", ALICE), False, "nothing else tells which tunnels are meant: to end"),
    ],
)
def test_a_tunnel_is_ended_though_the_database_is_damaged(
    answered, run, target, driver, command, is_served, how
):
    """What nothing tells is said, with what ends all."""

    async def main():
        async with served(target, driver, is_there=is_served):
            os.truncate(target.database, target.database.stat().st_size // 2)
            given = [word.format(answered.hex()) for word in command]
            return await asyncio.to_thread(refused, run, *given)

    said = asyncio.run(main()).sentence
    assert said.startswith(f"Cannot use the database {target.database}: ")
    assert how in said
    assert (driver.specs == {}) is ("nothing else tells" not in how)


def _gone(database):
    Path(f"{database}-wal").write_bytes(database.read_bytes())
    database.unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda database: os.truncate(database, 0), "is empty: restore it"),
        (lambda database: database.chmod(0o644), "run `chmod 600 "),
        (_gone, "is gone, and its log"),
    ],
    ids=["empty", "readable", "gone"],
)
def test_a_tunnel_is_ended_though_the_database_is_not_opened(
    answered, run, target, driver, harm, said
):
    harm(target.database)
    sentence = refused(run, "tunnels", "end", answered.hex()).sentence
    assert said in sentence
    assert _BY_ITS_NAME in sentence
    assert driver.specs == {}


def test_an_order_that_the_service_dies_of_stands(answered, run, target, driver):
    """It hangs, and is killed before it has heard of the order."""
    with sole_hold(target.lock):
        failure = refused(run, "users", "remove", ALICE)
    assert isinstance(failure, UnreachableError)
    assert failure.sentence == (
        "alice@office is no member any more, but the service carnet-target runs and does not"
        " answer; the order is written down, for 1 of the tunnels that are live and what is just"
        " being made, and is obeyed as the service looks at it or starts anew: restart it"
        " (systemctl restart carnet-target), and see its log."
    )

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                return await agent.ended("office", 0, 20)

    (ended,) = asyncio.run(main())
    assert (ended.request_id, ended.reason) == (answered, "user-removed")
    assert driver.specs == {}


@pytest.fixture
def _looked_at_soon(monkeypatch):
    """An order is looked at at once: nobody waits for the wake-up."""
    monkeypatch.setattr(orders, "HEARD_SECONDS", 0)
    monkeypatch.setattr(obeying, "LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("_looked_at_soon")
@pytest.mark.parametrize("when", ["stands", "is just being made"])
@pytest.mark.parametrize("by", ["request", "user"])
def test_an_order_of_which_the_service_is_not_told_is_obeyed(run, target, driver, ask, by, when):
    run("users", "add", ALICE, *GRANT)
    asked = ask()
    request_id = claimed_request_id(asked)
    which = {"request_id": request_id.hex()} if by == "request" else {"user_id": ALICE}

    async def main():
        with sole_hold(target.lock), opened_database(target.database, "target_agent") as engine:
            operator = Operator(target, driver, Records(engine), Orders(engine))

            def end():
                with pytest.raises(UnreachableError):
                    operator.end(Order("ended-by-operator", **which))

            async with running(target, driver, engine) as agent:
                if when == "is just being made":
                    driver.before_install = end
                answering = await agent.answer(asked, "office")
                if when == "stands":
                    await asyncio.to_thread(end)
                ended = await agent.ended("office", 0, 20)
                await until_none_is_left(engine)
            return answering, ended

    answering, (ended,) = asyncio.run(main())
    assert isinstance(answering.answer, TunnelGrant)
    assert (ended.request_id, ended.reason) == (request_id, "ended-by-operator")
    assert driver.specs == {}


async def until_none_is_left(engine):
    left = Orders(engine)._all
    await asyncio.to_thread(wait_until, lambda: left() == [], "no order to be left")


@pytest.mark.usefixtures("_looked_at_soon")
def test_what_was_ended_before_a_record_was_there_is_not_made_after_a_restart(
    run, target, driver, ask, monkeypatch
):
    """The service died as it made the tunnel; Host asks again, and another one answers."""
    run("users", "add", ALICE, *GRANT)
    asked, looks, unheard = ask(), SimpleQueue(), Orders.unheard
    monkeypatch.setattr(Orders, "unheard", lambda self: looks.put(None) or unheard(self))
    with sole_hold(target.lock):
        refused(run, "tunnels", "end", claimed_request_id(asked).hex())

    async def main():
        with opened_database(target.database, "target_agent") as engine:
            async with running(target, driver, engine) as agent:
                for _ in range(2):  # by the second time it was looked at, and kept
                    await asyncio.to_thread(looks.get, timeout=20)
                first = await agent.answer(asked, "office")
                await until_none_is_left(engine)
                return first, await agent.answer(asked, "office")

    for answering in asyncio.run(main()):
        assert answering.answer.code is RefusalCode.TOO_LATE
        assert "over (ended-by-operator)" in answering.answer.reason
    assert driver.installs == []


def test_an_order_that_the_service_has_obeyed_is_struck_out(answered, target, driver):
    async def main():
        with opened_database(target.database, "target_agent") as engine:
            operator = Operator(target, driver, Records(engine), Orders(engine))
            with sole_hold(target.lock):
                async with (
                    running(target, driver, engine) as agent,
                    control_socket(agent, target.control_socket),
                ):
                    for request_id in (answered.hex(), bytes(16).hex()):
                        order = Order("ended-by-operator", request_id=request_id)
                        await asyncio.to_thread(operator.end, order)
            return Orders(engine).reason_to_end(answered), Orders(engine).reason_to_end(bytes(16))

    assert asyncio.run(main()) == (None, None)


def test_a_service_that_does_not_answer_is_said_so(run, target):
    with sole_hold(target.lock):
        failure = refused(run, "tunnels", "end", bytes(16).hex())
    assert failure.sentence == (
        "The service carnet-target runs and does not answer; the order is written down, for none"
        " that is live and what is just being made, and is obeyed as the service looks at it or"
        " starts anew: restart it (systemctl restart carnet-target), and see its log."
    )


def on_a_full_disk(target, *tables):
    """Have the database take nothing more; returns what makes room."""
    with contextlib.closing(sqlite3.connect(target.database)) as connection, connection:
        for table in tables:
            connection.execute(
                f"CREATE TRIGGER {table}_full BEFORE INSERT ON {table}"
                " BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
            )

    def make_room():
        with contextlib.closing(sqlite3.connect(target.database)) as connection, connection:
            for table in tables:
                connection.execute(f"DROP TRIGGER {table}_full")

    return make_room


@pytest.mark.parametrize("command", [("tunnels", "end"), ("users", "remove")])
@pytest.mark.parametrize("served", [True, False])
def test_a_full_disk_keeps_no_tunnel_from_ending(answered, run, target, driver, command, served):
    make_room = on_a_full_disk(target, "audit", "orders")

    async def served_meanwhile():
        with opened_database(target.database, "target_agent") as engine, sole_hold(target.lock):
            async with (
                running(target, driver, engine) as agent,
                control_socket(agent, target.control_socket),
            ):
                failure = await asyncio.to_thread(refused, run, *command, ALICE)
                made = dict(driver.specs)
                make_room()
                return failure, made, await agent.ended("office", 0, 20)

    if served:
        failure, left, ended = asyncio.run(served_meanwhile())
        assert [each.request_id for each in ended] == [answered]
        then = "and the service carnet-target, whose log says more, writes that down by itself"
    else:
        failure, left = refused(run, *command, ALICE), dict(driver.specs)
        make_room()
        assert run(*command, ALICE)
        then = "and run this again"
    first, still = "The database", ""
    if command == ("users", "remove"):
        first, still = "the database", f"{ALICE} is a member still, and is to be removed again; "
    assert (left, failure.exit_status) == ({}, 1)
    assert failure.sentence == (
        f"{still}{first} cannot be written: 1 of the tunnels ended, and it does not say so yet;"
        f" see that its disk has room, {then}."
    )


@pytest.mark.usefixtures("answered")
def test_whoever_was_not_removed_is_said_to_be_a_member_still(run, target):
    """Also where there is nothing to end."""
    run("tunnels", "end", ALICE)
    on_a_full_disk(target, "audit")
    assert refused(run, "users", "remove", ALICE).sentence == (
        "alice@office is a member still, and is to be removed again; the database cannot be"
        " written; see that its disk has room, and run this again (tunnels ended: 0)."
    )


def test_neither_order_nor_end_on_a_full_disk_with_a_silent_daemon_is_said_so(
    answered, run, target, driver
):
    driver.running = False
    on_a_full_disk(target, "audit")
    said = refused(run, "tunnels", "end", answered.hex()).sentence
    assert "(disk is full), so 1 of the tunnels may live on: start it, or restart it if it" in said
    assert " runs, see that the disk" in said
    assert said.endswith(" has room, and run this again.")


def test_an_order_that_nobody_hears_on_a_full_disk_is_to_be_given_again(answered, run, target):
    on_a_full_disk(target, "orders")
    with sole_hold(target.lock):
        said = refused(run, "tunnels", "end", answered.hex()).sentence
    assert said == (
        "The service carnet-target runs and does not answer, and the order cannot be written down"
        " (disk is full): see that the disk of the database has room, restart the service"
        " (systemctl restart carnet-target), and run this again."
    )


@pytest.mark.usefixtures("answered")
def test_the_accounts_are_shown_and_checked(run, target, link):
    events = [each["event"] for each in json.loads(run("audit", "show", "--json"))]
    assert events == ["access-granted", "tunnel-prepared", "tunnel-refused"]
    assert len(json.loads(run("audit", "show", "--user", ALICE, "--since", "1h", "--json"))) == 3
    assert json.loads(run("audit", "show", "--user", "bob@office", "--json")) == []
    assert json.loads(run("audit", "show", "--until", "2020-01-01", "--json")) == []
    assert "tunnel-prepared" in run("audit", "show")
    assert "3 records, signed up to record 0" in run("audit", "verify")
    tamper(target, "UPDATE audit SET event = 'tunnel-refused' WHERE number = 2")
    assert "record 2" in refused(run, "audit", "verify").sentence


@pytest.mark.usefixtures("answered")
def test_the_head_of_the_accounts_is_signed_with_the_links_key(run, target, link, tmp_path):
    with opened_database(target.database, "target_agent") as engine:
        asyncio.run(head_keeper(target, engine).sign_newest())
    assert "signed up to record 3" in run("audit", "verify")
    witness = tmp_path / "head.txt"
    witness.write_text(run("audit", "head"))
    tamper(target, "DELETE FROM audit WHERE number = 3")
    assert "record 3" in refused(run, "audit", "verify").sentence
    tamper(target, "DELETE FROM audit_heads")
    assert "2 records" in run("audit", "verify")
    assert "record 3" in refused(run, "audit", "verify", "--head", str(witness)).sentence


@pytest.mark.usefixtures("answered")
def test_heads_under_an_earlier_certificate_are_verified_with_it(run, target, link, tmp_path):
    with opened_database(target.database, "target_agent") as engine:
        asyncio.run(head_keeper(target, engine).sign_newest())
    earlier = tmp_path / "earlier.crt"
    earlier.write_bytes(target.link.certificate.read_bytes())
    link()
    said = refused(run, "audit", "verify").sentence
    assert "no key of these accounts that was given" in said
    assert "by --certificate; if it is by none of them the accounts were changed" in said
    assert "signed up to record 3" in run("audit", "verify", "--certificate", str(earlier))


@pytest.fixture
def link(target, tmp_path):
    """Give the Target a certificate of the link; call it for the next one."""

    def renew():
        certificate, key = Authority(tmp_path).issue("work", "work")
        target.link.certificate.write_bytes(certificate.read_bytes())
        target.link.key.touch(mode=0o600)
        target.link.key.write_bytes(key.read_bytes())

    renew()
    return renew


def tamper(target, statement):
    """Change the accounts, as the owner of the file can."""
    with contextlib.closing(sqlite3.connect(target.database)) as connection, connection:
        for table in ("audit", "audit_heads"):
            for verb in ("update", "delete"):
                connection.execute(f"DROP TRIGGER IF EXISTS {table}_no_{verb}")
        connection.execute(statement)


@pytest.fixture
def serve(target, path):
    """Start `carnet-target serve` as a process; end it if the test did not."""
    authority = Authority(target.link.authority.parent, "officer")
    authority.issue("link", "work")
    started = []

    def start():
        process = subprocess.Popen(
            [Path(sys.executable).parent / "carnet-target", "--config", path, "serve"],
            stderr=subprocess.PIPE,
            env=os.environ | {"CARNET_CRASH_AT": ""},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def logged(process, event):
    for line in process.stderr:
        facts = json.loads(line)
        if facts["event"] == event:
            return facts
    raise AssertionError(f"the service ended without {event}")


def signed_up_to(run):
    """The number of the newest signed head; 0 while there is none."""
    with contextlib.suppress(UsageError):
        return read_unverified(bytes.fromhex(run("audit", "head")), AccountsHead).number
    return 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_starts_without_a_daemon_and_stops_cleanly(serve, run, target, number):
    run("users", "add", ALICE, *GRANT)
    process = serve()
    logged(process, "ike-daemon-silent")
    assert logged(process, "ready")["port"] == target.port
    wait_until(lambda: signed_up_to(run), "the head to be signed at the start")
    run("users", "remove", ALICE)
    process.send_signal(number)
    logged(process, "stopping")
    process.communicate()
    assert process.returncode == 0
    assert signed_up_to(run) == len(json.loads(run("audit", "show", "--json")))


def test_a_second_service_on_the_same_directory_is_refused(serve):
    logged(serve(), "ready")
    second = serve()
    _, said = second.communicate()
    assert second.returncode == 2
    assert b"Another carnet-target serves" in said


def test_a_lock_that_an_operators_command_has_is_waited_for(target):
    command = contextlib.ExitStack()
    assert command.enter_context(sole_hold(target.lock))
    with sole_hold(target.lock, 60, lambda: bool(command.close())) as alone:
        assert alone


def test_a_lock_that_a_service_has_is_not_waited_for(target):
    with sole_hold(target.lock), sole_hold(target.lock, 60, lambda: True) as alone:
        assert not alone


def test_a_service_waits_for_a_command_and_is_refused_as_one_that_may_start_again(
    target, driver, monkeypatch
):
    Authority(target.link.authority.parent, "officer").issue("link", "work")
    monkeypatch.setattr(service, "_ORDER_SECONDS", 0)
    with sole_hold(target.lock), pytest.raises(UnreachableError, match="A command still ends"):
        asyncio.run(service.serve(target, driver, None))


@pytest.mark.parametrize("names", [(), ("gateway",), ("work", "gateway")], ids="-".join)
def test_the_certificate_of_another_is_refused(target, driver, names):
    Authority(target.link.authority.parent, "officer").issue("link", *names)
    with pytest.raises(UsageError, match=f"of {', '.join(names) or 'nobody'}, and `name` is work"):
        asyncio.run(asyncio.wait_for(service.serve(target, driver, None), 60))


def test_no_thread_that_hangs_keeps_the_service(run, target, monkeypatch):
    given = []
    monkeypatch.setattr(services, "start_log", lambda _: None)
    monkeypatch.setattr(services, "run", given.append)
    run("serve")
    (served,) = given
    served.close()


def test_what_never_ends_does_not_keep_it_either(monkeypatch):
    class Hanging:
        async def stop(self):
            await asyncio.Event().wait()

    monkeypatch.setattr(service, "SHUTDOWN_SECONDS", 0)
    with capture_logs() as logs:
        asyncio.run(service._end(Hanging(), None))
    assert [each["event"] for each in logs] == ["stopped-unfinished"]


def test_it_stops_within_the_time_that_its_unit_has(tmp_path):
    unit = render("carnet-target", tmp_path, tmp_path)
    (allowed,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    doors = service.SHUTDOWN_SECONDS + observers.STOP_SECONDS + orders_door.STOP_SECONDS
    afterwards = service.SHUTDOWN_SECONDS + services.HANGING_SECONDS
    assert doors + afterwards < int(allowed)


def test_a_key_that_others_can_read_is_refused(serve, target):
    target.link.key.chmod(0o644)
    process = serve()
    _, said = process.communicate()
    assert (process.returncode, b"chmod 600" in said) == (2, True)

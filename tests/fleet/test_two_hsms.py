"""A fleet of two with an HSM each: the same pairs on both, each spent once, burned on both."""

import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from carnet.errors import RefusedError
from host_agent.keydb import KeyDatabase
from lab.waiting import wait_until
from tests.fleet.gateway import Gateway
from tests.fleet.test_concurrency import accounts
from tests.fleet.test_fleet import PATIENCE
from tests.fleet.traveller import send_one, send_until_answered
from tests.fleet.two_hsms import PAIRS, TwoHsms
from tests.host.put_back import newest
from tests.target.certificates import Authority


@pytest.fixture
def fleet(directory, place):
    authority = Authority(directory)
    with (
        Gateway(directory, authority) as gateway,
        TwoHsms(directory, place, authority, gateway) as made,
    ):
        yield made


@pytest.fixture
def hosts(fleet):
    """Host A and Host B, each with its own batch imported; they do not serve yet."""
    for process, batch in zip(fleet.processes, fleet.batches, strict=True):
        done = process.run_with_pin("import", str(batch), "--json")
        assert done.returncode == 0, done.stderr
    return fleet.processes


def owed(host):
    return {pair["key_id"] for pair in json.loads(host.run("keys", "--state", "owed", "--json"))}


def test_each_imports_what_was_made_for_its_own_hsm_and_nothing_twice(fleet, hosts):
    _, second = hosts
    assert fleet.held(0) == fleet.held(1)
    assert len(fleet.held(0)) == PAIRS
    refused = second.run_with_pin("import", str(fleet.batches[0]))
    assert refused.returncode == RefusedError.exit_status
    assert "another Host's transport key" in refused.stderr
    again = json.loads(second.run_with_pin("import", str(fleet.batches[1]), "--json").stdout)
    assert again["new"] == 0
    assert accounts(fleet.place).count("imported") == PAIRS


def test_a_pair_is_spent_on_both_and_burned_on_both(fleet, hosts):
    first, second = hosts
    first.start()
    key_id, request = fleet.seal(0)
    reply = send_until_answered([first.url], request)
    assert reply.status == 200
    wait_until(lambda: key_id.hex() not in fleet.held(0), "the burn at the first", PATIENCE)
    assert key_id.hex() in fleet.held(1)
    assert owed(first) == {key_id.hex()}
    # It burns its copy as it starts, and that may be a while after it is ready.
    second.start()
    assert send_one(second.url, request).body == reply.body
    assert len(fleet.gateway.session_keys) == 1
    assert fleet.gateway.session_keys == dict([fleet.open(request, reply.body)])
    wait_until(lambda: owed(first) == set(), "the burn at the second", PATIENCE)
    assert key_id.hex() not in fleet.held(1)
    assert accounts(fleet.place).count("key-destroyed") == 2
    assert accounts(fleet.place).count("answered") == 1


def test_a_key_that_a_power_cut_brought_back_is_destroyed_again(fleet, hosts):
    first, _ = hosts
    files = fleet.homes[0].directory / "tokens"
    shutil.copytree(files, files.with_name("before"))
    first.start()
    key_id, request = fleet.seal(0)
    assert send_until_answered([first.url], request).status == 200
    wait_until(lambda: key_id.hex() not in fleet.held(0), "the burn", PATIENCE)
    wait_until(lambda: nothing_of_its_own_is_owed(fleet, 0), "the record of it", PATIENCE)
    first.stop()
    for path in files.with_name("before").rglob("*"):
        there = files / path.relative_to(files.with_name("before"))
        if path.is_file() and not there.exists():
            shutil.copy(path, there)
    assert key_id.hex() in fleet.held(0)
    first.start()
    wait_until(lambda: key_id.hex() not in fleet.held(0), "the second burn", PATIENCE)
    assert accounts(fleet.place).count("key-destroyed") == 1


def nothing_of_its_own_is_owed(fleet, number):
    (token,) = (fleet.homes[number].directory / "tokens").glob("*-*")
    with KeyDatabase.opened(fleet.place) as database:
        return not database.keys_to_destroy(token.name.replace("-", "")[-16:])


def test_what_the_first_left_the_second_takes_up_on_its_own_hsm(fleet, hosts):
    dying, other = hosts
    dying.start(CARNET_CRASH_AT="host.spent")
    other.start()
    key_id, request = fleet.seal(0)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(send_one, dying.url, request)
        assert dying.wait() == -signal.SIGKILL
    with KeyDatabase.opened(fleet.place) as database:
        wait_until(
            lambda: database.find_request(key_id).outcome == "granted",
            "the other to take the request up",
            PATIENCE,
        )
    reply = send_one(other.url, request)
    assert fleet.gateway.session_keys == dict([fleet.open(request, reply.body)])
    assert key_id.hex() in fleet.held(0)
    dying.start()
    wait_until(lambda: owed(other) == set(), "the first to burn its copy", PATIENCE)
    assert key_id.hex() not in fleet.held(0) | fleet.held(1)
    assert send_one(dying.url, request).body == reply.body


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_an_hsm_remembers_what_the_other_one_has_signed(fleet):
    """Or a database put back to before would be served where that one was the quicker."""
    first, second = fleet.processes
    assert first.run_with_pin("import", str(fleet.batches[0])).returncode == 0
    second.start()
    second.stop()
    assert fleet.mark(1) == newest(fleet.place)


def test_the_accounts_are_verified_by_the_keys_of_both(fleet, hosts, directory):
    keys = []
    for number, host in enumerate(hosts):
        host.start()
        host.stop()
        keys += ["--key", str(directory / f"accounts-{number}.pem")]
        (directory / f"accounts-{number}.pem").write_text(host.run_with_pin("audit", "key").stdout)
    assert json.loads(hosts[0].run("audit", "verify", *keys, "--json"))["whole"]
    of_one = hosts[1].run_with_pin("audit", "verify")
    assert of_one.returncode == 1
    assert "of a Host with several HSMs give the keys of all by --key" in of_one.stderr

"""A booklet of each kind of key, from minting to the burn, on real parts."""

import json
from contextlib import contextmanager

import pytest

from lab.http_client import request
from lab.network import SERVER_ADDRESS
from lab.world import World
from tests.lab.offices import FILE, FILE_SERVER, FILE_URL, AtWork

PAIRS = 3


@pytest.fixture(
    scope="module",
    params=[("ec-p384", "p-384", 3), ("rsa-2048", "rsa-sha1", 4)],
    ids=lambda param: param[0],
)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def office(lane, kind):
    key_type, suite, _ = kind
    with World() as world:
        office = AtWork(world, lane)
        office.leave_unwatched()
        office.initialise_tokens()
        office.certify()
        office.configure()
        assert office.mint(PAIRS, key_type=key_type)["suite"] == suite
        office.carry_over()
        assert office.import_batch()["new"] == PAIRS
        office.admit()
        (world.server.directory / "plan.txt").write_bytes(FILE)
        directory = str(world.server.directory)
        world.server.start(["python", str(FILE_SERVER), SERVER_ADDRESS, "80", directory])
        world.server.wait_for_port(80)
        office.start()
        yield office


def fetch(office):
    return request(office.world.client, "GET", FILE_URL)


@contextmanager
def allowing(office, name, suites):
    """Have an agent, "host" or "target", allow these suites only, for a while."""
    path = getattr(office.world, name).directory / "etc" / f"{name}.toml"
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("suites"))
    path.write_text(text.replace(line, f"suites = {json.dumps(suites)}"))
    try:
        serve_again(office, name)
        yield
    finally:
        path.write_text(text)
        serve_again(office, name)


def serve_again(office, name):
    getattr(office, f"{name}_agent").stop()
    setattr(office, f"{name}_agent", getattr(office, f"serve_{name}")())


def test_both_tokens_hold_the_pairs_and_let_none_out(office):
    known = office.secrets
    travellers = office.listing(office.world.client, known.pin)
    hosts = office.listing(office.world.host, known.hsm_pin)
    assert {key["key_id"] for key in travellers} == {key["key_id"] for key in hosts}
    assert len(travellers) == PAIRS
    assert all(key["sensitive"] and not key["extractable"] for key in travellers + hosts)


def test_the_pairs_left_are_told_without_the_pin(office, kind):
    (token,) = office.facts(office.world.client, "carnet", "tokens")
    key_type, suite, _ = kind
    counted = {"key_type": key_type, "suite": suite, "custody": "paired", "count": PAIRS}
    assert token["pairs"] == [counted]


def test_a_tunnel_opens_carries_a_file_and_burns_the_pair_on_both_tokens(office, kind):
    (spent, *_), number = office.pairs(), kind[2]
    assert spent["suite"] == number
    assert fetch(office).status == 0
    done = office.carnet("connect", "--json")
    assert done.returncode == 0, done.stderr
    fetched = fetch(office)
    assert fetched.body == FILE, (fetched, office.carnet("status").stdout)
    key_id = spent["key_id"]
    assert office.spent_pairs() == [key_id]
    office.host_agent.wait_for_line(f'"key_id": "{key_id}", "event": "key-destroyed"')
    for machine in (office.world.client, office.world.host):
        left = office.keys_on(machine)
        assert key_id not in left
        assert len(left) == PAIRS - 1
    assert (
        "verified just now"
        in office.target("audit", "explain", office.live_tunnels()[0]["request_id"]).stdout
    )
    office.carnet("disconnect")
    assert fetch(office).status == 0


def test_a_host_that_does_not_allow_the_suite_answers_as_to_a_stranger(office):
    before = office.keys_on(office.world.client)
    with allowing(office, "host", ["p-256"]):
        done = office.carnet("connect")
        office.host_agent.wait_for_line('"reason": "the suite is not allowed"')
    assert done.returncode == 6
    assert "set aside" in done.stdout
    assert "Each key pair that is left on token alice got an unsealed no" in done.stderr
    assert office.keys_on(office.world.client) == before
    assert office.valid_pairs() == len(before)


def test_a_target_that_does_not_allow_the_suite_refuses_with_the_reason(office, kind):
    with allowing(office, "target", ["p-256"]):
        done = office.carnet("connect")
    assert done.returncode == 3
    assert "evidence-not-accepted" in done.stderr
    assert f"does not allow suite {kind[1]}" in done.stderr

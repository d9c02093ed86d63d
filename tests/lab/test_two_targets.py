"""One traveller with tunnels to two Targets: beside each other, or one at a time."""

import json

import pytest

from lab.http_client import request
from lab.residue import machine_state
from tests.lab.offices import FILE, FILE_URL, is_one_sentence
from tests.lab.two_targets import EVERYTHING, LAB_FILE, LAB_NETWORK, LAB_URL, two_targets


@pytest.fixture(scope="module")
def office(lane):
    with two_targets(lane, pairs=17) as made:
        yield made


@pytest.fixture(autouse=True)
def ended(office):
    before = machine_state(office.client_charon)
    yield
    assert office.carnet("disconnect").returncode == 0
    assert machine_state(office.client_charon) == before


def connect(office, *options):
    done = office.carnet("connect", *options)
    assert done.returncode == 0, done.stderr


def fetched(office, url):
    return request(office.world.client, "GET", url).body


def up(office):
    listed = json.loads(office.carnet("status", "--json").stdout)
    return {tunnel["target"]: tunnel["up"] for tunnel in listed}


def is_refused(done, other):
    anew = {"work": "lab", "lab": "work"}[other]
    said = (
        f"run `carnet disconnect {other}`, then `carnet connect {anew}` again with the same options"
    )
    return done.returncode == 5 and is_one_sentence(done) and said in done.stderr


def test_tunnels_to_different_networks_stand_beside_each_other(office):
    connect(office, "work")
    connect(office, "lab", "--network", LAB_NETWORK)
    assert (fetched(office, FILE_URL), fetched(office, LAB_URL)) == (FILE, LAB_FILE)
    assert up(office) == {"work": True, "lab": True}
    assert office.carnet("disconnect", "work").returncode == 0
    assert fetched(office, LAB_URL) == LAB_FILE
    connect(office, "work")
    assert office.carnet("disconnect", "lab").returncode == 0
    assert fetched(office, FILE_URL) == FILE


def test_what_would_take_the_others_packets_is_refused_and_its_answer_kept(office):
    connect(office, "work")
    before = office.valid_pairs()
    for network in (EVERYTHING, "10.20.0.0/24", "198.51.100.0/29"):
        assert is_refused(office.carnet("connect", "lab", "--network", network), "work")
    assert office.valid_pairs() == before
    # Only Target says that its networks are everything.
    assert is_refused(office.carnet("connect", "lab"), "work")
    assert office.valid_pairs() == before - 1
    assert (fetched(office, FILE_URL), up(office)) == (FILE, {"work": True})
    assert office.carnet("disconnect", "work").returncode == 0
    connect(office, "lab")
    assert office.valid_pairs() == before - 1
    assert fetched(office, LAB_URL) == LAB_FILE


def test_the_answer_that_is_kept_is_not_lost_by_a_tunnel_to_another_target(office):
    """Nor is its pair taken for that, or destroyed as Host then says that it is spent."""
    connect(office, "work")
    before = office.valid_pairs()
    assert is_refused(office.carnet("connect", "lab"), "work")
    (token,) = json.loads(office.carnet("tokens", "--json").stdout)
    assert token["pairs_left"] == office.valid_pairs() == before - 1
    connect(office, "work")
    assert office.valid_pairs() == before - 2
    assert office.carnet("disconnect", "work").returncode == 0
    connect(office, "lab")
    assert office.valid_pairs() == before - 2
    assert fetched(office, LAB_URL) == LAB_FILE


def test_who_asks_otherwise_for_a_tunnel_to_the_same_target_hears_that_the_answer_was_dropped(
    office,
):
    connect(office, "work")
    assert is_refused(office.carnet("connect", "lab"), "work")
    done = office.carnet("connect", "lab", "--lifetime", "1h")
    assert is_refused(done, "work")
    assert "of an earlier request, for another tunnel to lab than this, was dropped" in done.stdout


def test_beside_a_full_tunnel_no_other_is_asked_for(office):
    connect(office, "lab")
    before = office.valid_pairs()
    for options in ((), ("--network", "10.20.0.0/16")):
        assert is_refused(office.carnet("connect", "work", *options), "lab")
    assert office.valid_pairs() == before
    assert up(office) == {"lab": True}


def test_what_is_over_and_nobody_has_ended_is_not_in_the_way(office):
    connect(office, "work")
    (path,) = office.world.client.path("/run/carnet-client").glob("session-*.json")
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps(record | {"expires": record["established_at"] - 60}))
    done = office.carnet("connect", "lab")
    assert done.returncode == 0, done.stderr
    assert "What was left of the session to work was ended: its time is over." in done.stderr
    assert fetched(office, LAB_URL) == LAB_FILE
    assert up(office) == {"work": False, "lab": True}


def test_beside_a_tunnel_that_no_record_tells_of_none_takes_its_packets(office):
    connect(office, "work")
    before = office.valid_pairs()
    (record,) = office.world.client.path("/run/carnet-client").glob("session-*.json")
    record.write_bytes(b"{")
    for options, spent in ((("--network", "10.20.0.0/24"), 0), ((), 1)):
        done = office.carnet("connect", "lab", *options)
        assert (done.returncode, office.valid_pairs()) == (5, before - spent)
        assert "no record of yours tells of that one" in done.stderr
    assert fetched(office, FILE_URL) == FILE

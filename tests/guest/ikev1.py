"""A Client that has IKEv1 alone: for test_connect, after objectives."""

import json

import pytest

from carnet.ipsec.vici_link import open_session, text
from lab.office import pipes
from lab.waiting import wait_until
from tests.guest.addresses import BY_VERSION
from tests.guest.objectives import states
from tests.guest.offices import OpenOffice
from tests.guest.traffic import fetch
from tests.lab.offices import is_one_sentence

OLD = ("python", "-m", "tests.lab.ikev1_client")
ALONE = ("--transport",)
NETWORK = ("--network", BY_VERSION[4].network)


@pytest.fixture(scope="module")
def allowing(office):
    """The office once its operator serves such Clients, with modern algorithms."""
    office.reconfigure_file(office.profile, OpenOffice.profile)
    office.profile = OpenOffice.profile
    office.reconfigure_file("require_ppk = true", "require_ppk = false")
    office.reconfigure("allow_ikev1 = false", "allow_ikev1 = true")
    return office


def old_connect(office, *options):
    return office.command(
        office.world.client, *OLD, "connect", "--json", *options,
        given={"pin": office.secrets.pin}, extra=office.unwatched(), check=False,
    )  # fmt: skip


def ike_versions(charon):
    with open_session(charon.vici) as session:
        return [sa["version"] for each in session.list_sas() for sa in text(each).values()]


def test_ikev1_is_not_served_unless_the_operator_says_so(office):
    office.carnet("disconnect")
    wait_until(lambda: ike_versions(office.target_charon) == [], "the end of what stood")
    done = old_connect(office, "--objective", "esp", *NETWORK)
    assert (done.returncode, is_one_sentence(done)) == (3, True), done.stderr
    assert "has IKEv1 alone, which" in done.stderr
    assert ike_versions(office.target_charon) == []


@pytest.mark.parametrize(
    ("objective", "where", "expected"),
    [
        ("esp", NETWORK, "ESP"),
        ("ah", ALONE, "AH TCP"),
    ],
    ids=["esp-tunnel", "ah-transport"],
)
def test_a_client_with_ikev1_alone_gets_it(allowing, objective, where, expected):
    before = states(allowing)
    facts = carried(allowing, objective, where, expected)
    assert ike_versions(allowing.target_charon) == ["1"]
    with open_session(allowing.target_charon.vici) as session:
        assert session.get_shared()["keys"] == []
    assert all(now != then for now, then in zip(states(allowing), before, strict=True))
    allowing.end(facts)
    assert states(allowing) == before


def carried(office, objective, where, expected):
    """Connect, fetch a file, look what passed meanwhile, and return the facts."""
    ends = BY_VERSION[4]
    with office.watched() as seen:
        done = old_connect(office, "--objective", objective, *where)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        name = facts["name"].removeprefix("carnet-")
        office.target_agent.wait_for_line(f'"{name}".*"event": "established"')
        goal = ends.target if where is ALONE else ends.server
        assert fetch(office.world.client, goal)
    assert seen.kinds(ends.client, ends.target) == {expected}
    return facts


def test_who_comes_while_another_is_awaited_waits_and_spends_one_pair(allowing):
    before = allowing.valid_pairs()
    other = {"another": {"version": "1", "remote_addrs": ["%any"]}}
    with open_session(allowing.target_charon.vici) as session:
        session.load_conn(other)
    with pipes({"pin": allowing.secrets.pin}) as (options, fds):
        argv = [*OLD, "connect", "--json", "--objective", "esp", *NETWORK, *options]
        connecting = allowing.world.client.start(
            argv, log="waiting.log", pass_fds=fds, extra=allowing.unwatched()
        )
    allowing.target_agent.wait_for_line(r"awaited with IKEv1 \(another\).*\"deferred\"")
    with open_session(allowing.target_charon.vici) as session:
        session.unload_conn({"name": "another"})
    assert connecting.wait() == 0
    assert ike_versions(allowing.target_charon) == ["1"]
    assert allowing.valid_pairs() == before - 1
    assert allowing.carnet("disconnect").returncode == 0

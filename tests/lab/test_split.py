"""Custody `split` on real parts, from minting to the tunnel: the Host has no private key."""

import json
import shutil

import pytest

from lab.http_client import request
from lab.office import HOST_KEYS, HOST_URL, USER
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, split_office_at_work

PAIRS = 6


@pytest.fixture(scope="module")
def office(lane):
    with split_office_at_work(lane, PAIRS) as office:
        yield office


@pytest.fixture(scope="module")
def copy(office, tmp_path_factory):
    """What was on the token before any of its pairs was used."""
    place = tmp_path_factory.mktemp("token") / "tokens"
    return shutil.copytree(office.world.token / "tokens", place)


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.carnet("disconnect")


def fetch(office):
    return request(office.world.client, "GET", FILE_URL)


@pytest.mark.usefixtures("copy")
def test_the_private_keys_are_on_the_travellers_token_alone(office):
    keys = office.listing(office.world.client, office.secrets.pin)
    assert len(keys) == PAIRS
    assert all(key["sensitive"] and not key["extractable"] for key in keys)
    assert office.keys_on(office.world.host) == set()


def test_the_custody_is_told_without_the_pin(office):
    (token,) = office.facts(office.world.client, "carnet", "tokens")
    left = {"key_type": "ec-p256", "suite": "p-256", "custody": "split", "count": PAIRS}
    assert token["pairs"] == [left]


def made_by_another_tool(office, *what):
    """Run pkcs11-tool on the traveller's token; return its output."""
    client = office.world.client
    configuration = client.directory / ".local/share/carnet/softhsm/softhsm2.conf"
    return office.command(
        client, "pkcs11-tool", "--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label",
        "alice", "--login", "--pin", office.secrets.pin, *what,
        extra={"SOFTHSM2_CONF": str(configuration)},
    ).stdout  # fmt: skip


def test_a_key_that_another_tool_made_is_adopted_imported_used_and_burned(office):
    """First, while no other pair is spent: the Client would be told of it, and remember."""
    made_by_another_tool(office, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "spare")
    client, officer, host = office.world.client, office.world.officer, office.world.host
    office.plug_in(officer)
    place = officer.directory
    order = ("adopt", "--label", "spare", "--count", "1", "--user", USER, "--target", "work")
    order += ("--host-url", HOST_URL, "--host-keys", str(place / HOST_KEYS))
    order += ("--out", str(place / "spare.batch"), "--cover-out", str(place / "spare.cover"))
    facts = office.facts(officer, "carnet-provision", *order, given=office.officer_secrets)
    assert (facts["pairs"], facts["adopted_before"]) == (1, {})
    office.pull_out(officer)
    shutil.copy(place / "spare.batch", host.directory / "alice.batch")
    assert office.import_batch()["new"] == 1
    cover = ("--cover", str(shutil.copy(place / "spare.cover", client.directory)))
    done = office.carnet("connect", *cover)
    assert done.returncode == 0, done.stderr
    assert "0 key pairs left" in done.stdout
    assert fetch(office).body == FILE
    assert len(office.spent_pairs()) == 1
    assert "spare" not in made_by_another_tool(office, "--list-objects")
    office.disconnect()
    assert office.carnet("connect", *cover).returncode == 7


def test_a_tunnel_opens_carries_a_file_and_burns_the_pair_on_the_token(office):
    assert fetch(office).status == 0
    (spent, *_) = [pair for pair in office.pairs() if pair["state"] == "valid"]
    before = office.spent_pairs()
    done = office.carnet("connect", "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["steps_ms"]) == {str(number) for number in range(1, 11)}
    assert fetch(office).body == FILE
    assert {*office.spent_pairs()} - {*before} == {spent["key_id"]}
    assert spent["key_id"] not in office.keys_on(office.world.client)
    (pair,) = [each for each in office.pairs() if each["key_id"] == spent["key_id"]]
    assert (pair["reason"], pair["custody"]) == ("spent", "split")
    assert not pair["destruction_owed"]
    tunnel = office.live_tunnels()[0]["request_id"]
    for chain in (office.target, office.host):
        told = chain("audit", "explain", tunnel, "--json").stdout
        assert "which her token alone has (custody split)" in told
        assert "verified just now" in told


def test_a_refusal_names_the_siblings_to_be_burned(office):
    lost = next(pair for pair in office.pairs() if pair["state"] == "valid")["key_id"]
    office.host("revoke", "--key", lost, "--reason", "a test")
    assert lost in office.keys_on(office.world.client)
    done = office.carnet("connect", "--network", "192.0.2.0/24")
    # The revoked pair is the next one: an unsealed no sets it aside, a sealed one burns it.
    assert done.returncode == 3, done.stderr
    assert "network-not-allowed" in done.stderr
    assert lost not in office.keys_on(office.world.client)


def test_a_lost_answer_costs_no_pair(office):
    """The next run sends the same bytes, which the token alone opens for it."""
    before = len(office.spent_pairs())
    impatient = office.configure_client("patience = 2\n")
    office.target_agent.stop()
    done = office.carnet("connect", extra=impatient)
    assert done.returncode == 6
    assert "the same request is sent again" in done.stderr
    assert len(office.spent_pairs()) == before + 1
    office.target_agent = office.serve_target()
    done = office.carnet("connect")
    assert done.returncode == 0, done.stderr
    assert fetch(office).body == FILE
    assert len(office.spent_pairs()) == before + 1


def test_a_new_generation_of_the_hosts_keys_serves_what_was_minted_before(office):
    office.fetch_host_keys("--new")
    listed = json.loads(office.host("host-keys", "--list", "--json", given=office.hsm_pin).stdout)
    valid = office.valid_pairs()
    assert [(each["generation"], each["valid_pairs"]) for each in listed] == [(1, valid), (2, 0)]
    done = office.carnet("connect")
    assert done.returncode == 0, done.stderr


def test_with_a_generation_of_the_hosts_keys_its_pairs_are_over(office, copy):
    """The last test of this office; its token is restored from the copy, with all pairs."""
    valid, spent = office.valid_pairs(), office.spent_pairs()
    killed = office.command(
        office.world.host, *office._host_argv(), "host-keys", "--destroy", "1", "--yes",
        given=office.hsm_pin, extra={"CARNET_CRASH_AT": "host.generation-revoked"}, check=False,
    )  # fmt: skip
    assert killed.returncode in {-9, 137}, killed.stderr
    assert valid > 0 == office.valid_pairs()
    # The keys are there still; without any valid pair nothing is lost by that.
    done = office.host("host-keys", "--destroy", "1", "--yes", given=office.hsm_pin)
    assert "0 valid key pairs that needed it are revoked" in done.stdout
    shutil.rmtree(office.world.token / "tokens")
    shutil.copytree(copy, office.world.token / "tokens")
    for said in (
        "3 key pairs got an unsealed no and are set aside, not destroyed: they are spent, ",
        "Each key pair that is left on token alice got an unsealed no: all are spent or revoked ",
    ):
        done = office.carnet("connect")
        assert (done.returncode, is_one_sentence(done)) == (6, True), done.stderr
        assert said in done.stderr
        assert done.stdout.count("set aside") == PAIRS / 2
    assert office.spent_pairs() == spent

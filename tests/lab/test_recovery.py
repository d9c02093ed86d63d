"""What goes wrong on the way, and that it costs no key pair that it need not cost.

Processes that are killed are in tests/crashes.
"""

import json
import signal

import pytest

from carnet.ipsec.vici_link import open_session
from lab.http_client import request
from lab.network import ROUTER_TO_CLIENT
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, office_at_work

IMPATIENT = "patience = 2\n"


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=40, watched=False) as made:
        yield made


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.disconnect()


@pytest.fixture
def impatient(office):
    return office.configure_client(IMPATIENT)


@pytest.fixture
def one_pair(office):
    """Checks that all of a test spent one pair and made one tunnel, on both tokens."""
    spent, tunnels = office.spent_pairs(), len(office.tunnels())
    yield
    newly = set(office.spent_pairs()) - set(spent)
    assert len(newly) == 1
    assert len(office.tunnels()) == tunnels + 1
    (key_id,) = newly
    assert key_id not in office.keys_on(office.world.client)
    office.host_agent.wait_for(
        lambda: key_id not in office.keys_on(office.world.host), "the burn on the HSM"
    )


def connect_and_fetch(office, **options):
    done = office.carnet("connect", **options)
    assert done.returncode == 0, done.stderr
    assert request(office.world.client, "GET", FILE_URL).body == FILE


def connect(office):
    """Return what is told of a tunnel that stands."""
    connect_and_fetch(office)
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    return tunnel


def test_the_network_pulled_for_ten_seconds_during_step_1(office, one_pair):
    router = office.world.router
    router.run(["ip", "link", "set", "client", "down"])
    connecting = office.start_connect()
    connecting.wait_for_line("trying again")
    # Ten seconds without a network are what is tested here, not something waited for.
    router.run(["sh", "-c", "sleep 10; ip link set client up"])
    assert connecting.wait(60) == 0, connecting.output()


def test_a_kept_request_that_is_damaged_is_said_to_be_dropped(office):
    office.start_connect(extra={"CARNET_CRASH_AT": "client.prepared"}).wait(60)
    (kept,) = office.world.client.path("/run/carnet-client").glob("pending-*")
    kept.write_bytes(kept.read_bytes()[:-9])
    done = office.carnet("connect")
    assert done.returncode == 0, done.stderr
    said = "damaged, or by an older version, and was dropped: its key pair may be spent"
    assert said in done.stdout


def test_a_host_that_is_away_is_said_and_costs_nothing(office, impatient, one_pair):
    office.host_agent.stop()
    done = office.carnet("connect", extra=impatient)
    assert done.returncode == 6
    assert is_one_sentence(done)
    assert "No Host answers" in done.stderr
    office.host_agent = office.serve_host()
    connect_and_fetch(office)


def test_a_target_that_is_away_is_said_and_costs_nothing(office, impatient, one_pair):
    office.target_agent.stop()
    done = office.carnet("connect", extra=impatient)
    assert done.returncode == 6
    assert is_one_sentence(done)
    assert "cannot reach Target work" in done.stderr
    office.target_agent = office.serve_target()
    connect_and_fetch(office)


def test_a_target_without_charon_is_said_and_costs_nothing(office, impatient, one_pair):
    office.target_charon.stop()
    done = office.carnet("connect", extra=impatient)
    assert done.returncode == 6
    assert is_one_sentence(done)
    assert "cannot prepare a tunnel" in done.stderr
    office.start_target_charon()
    connect_and_fetch(office)


def test_charon_killed_at_target_ends_the_tunnel_in_the_accounts(office):
    connect_and_fetch(office)
    (tunnel,) = office.live_tunnels()
    request_id = tunnel["request_id"]
    office.target_agent.wait_for_line(f'"{request_id}".*"event": "established"')
    office.target_charon.kill()
    office.target_charon.start()
    office.target_agent.wait_for_line(f'"{request_id}".*ike-daemon-restarted.*"event": "ended"')
    assert office.live_tunnels() == []
    office.carnet("disconnect")
    connect_and_fetch(office)


BLOCK = """
add table ip blocked
add chain ip blocked forward { type filter hook forward priority -10; }
add rule ip blocked forward udp dport { 500, 4500 } drop
"""


@pytest.fixture
def ike_blocked(office):
    """IKE does not pass the router, until the test lets it."""
    router = office.world.router
    router.run(["nft", "-f", "-"], stdin=BLOCK)

    def let_through():
        router.run(["nft", "delete", "table", "ip", "blocked"], check=False)

    yield let_through
    let_through()


def test_ike_that_is_blocked_is_said_and_the_answer_is_kept(office, one_pair, ike_blocked):
    done = office.carnet("connect")
    ike_blocked()
    assert done.returncode == 5
    assert is_one_sentence(done)
    assert "500 and 4500" in done.stderr
    assert "IKE negotiated" not in done.stdout
    connect_and_fetch(office)


def begin_anew(office):
    """Have Target know of no tunnel, and give its addresses from the first on."""
    office.target_agent.stop()
    office.target_charon.kill()
    office.target_charon.start()
    office.target_agent = office.serve_target()


def test_what_had_the_same_address_is_held_back_where_the_newer_tunnel_does_not_come_up(office):
    begin_anew(office)
    first = connect(office)
    begin_anew(office)
    office.world.router.run(["nft", "-f", "-"], stdin=BLOCK)
    try:
        done = office.carnet("connect")
    finally:
        office.world.router.run(["nft", "delete", "table", "ip", "blocked"])
    assert "500 and 4500" in done.stderr
    (left,) = json.loads(office.carnet("status", "--json").stdout)
    assert (left["name"], left["up"], left["closed"]) == (first["name"], False, True)
    second = connect(office)
    assert second["virtual_address"] == first["virtual_address"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_client_that_is_ended_during_ike_leaves_no_secret_in_the_daemon(
    office, one_pair, ike_blocked, number
):
    connecting = office.start_connect()
    with open_session(office.client_charon.vici) as session:
        connecting.wait_for(lambda: any(session.list_sas()), "IKE to begin")
    connecting.signal(number)
    assert connecting.wait() == 130
    with open_session(office.client_charon.vici) as session:
        assert list(session.list_conns()) == []
        assert session.get_shared()["keys"] == []
    assert json.loads(office.carnet("status", "--json").stdout) == []  # nor anything held back
    ike_blocked()
    connect_and_fetch(office)


def test_without_a_vici_socket_no_pair_is_spent(office):
    before = office.keys_on(office.world.client)
    office.client_charon.stop()
    done = office.carnet("connect")
    office.client_charon.start()
    assert done.returncode == 5
    assert is_one_sentence(done)
    assert "start it" in done.stderr
    assert office.keys_on(office.world.client) == before


def connect_to_impostor(office, how, patience=60, crash_at=""):
    """Run `carnet connect` with somebody on the way in the Host's place."""
    router = office.world.router
    command = ["python", "-m", "tests.lab.impostor", how, ROUTER_TO_CLIENT, "8470"]
    impostor = router.start(command)
    try:
        router.wait_for_port(8470)
        hosts = f'hosts = ["http://{ROUTER_TO_CLIENT}:8470"]\npatience = {patience}\n'
        extra = office.configure_client(hosts) | {"CARNET_CRASH_AT": crash_at}
        return office.carnet("connect", extra=extra)
    finally:
        impostor.kill()


@pytest.mark.parametrize("how", ["babble", "drip"])
def test_an_answer_that_is_none_costs_no_more_than_patience(office, one_pair, how):
    """Nothing of it is believed, and the same bytes go to the Host later."""
    done = connect_to_impostor(office, how, patience=2)
    assert done.returncode == 6
    assert is_one_sentence(done)
    assert "  2  " not in done.stdout
    assert "  8  " not in done.stdout
    connect_and_fetch(office)


def test_an_unsealed_no_sets_pairs_aside_and_destroys_none(office):
    """Somebody on the way says 403 to everything; later the real Host answers."""
    before = office.keys_on(office.world.client)
    done = connect_to_impostor(office, "refuse")
    assert done.returncode == 6
    assert is_one_sentence(done)
    assert f"for the {len(before) - 3} that were not tried yet" in done.stderr
    assert office.keys_on(office.world.client) == before
    order = [pair["key_id"] for pair in office.pairs() if pair["state"] == "valid"]
    connect_and_fetch(office)
    assert order[3] in office.spent_pairs()
    assert not set(order[:3]) & set(office.spent_pairs())
    office.carnet("disconnect")
    connect_and_fetch(office)
    assert order[0] in office.spent_pairs()


def test_a_revoked_pair_is_burned_at_the_next_answer(office):
    revoked = next(pair["key_id"] for pair in office.pairs() if pair["state"] == "valid")
    office.host("revoke", "--key", revoked, "--reason", "a test")
    connect_and_fetch(office)
    assert revoked not in office.keys_on(office.world.client)


def test_revoking_a_pair_ends_the_tunnel_that_it_opened(office):
    before = set(office.spent_pairs())
    connect_and_fetch(office)
    (key_id,) = set(office.spent_pairs()) - before
    office.host("revoke", "--key", key_id, "--reason", "a test")
    office.host_agent.wait_for(lambda: not office.live_tunnels(), "the end of the tunnel")
    (ended,) = [each for each in office.pairs() if each["key_id"] == key_id]
    office.host_agent.wait_for_line('"event": "tunnel-ended".*|.*"reason": "revoked"')
    assert ended["reason"] == "spent"


def test_the_accounts_of_all_this_are_whole(office):
    assert office.host("audit", "verify", given=office.hsm_pin).returncode == 0
    assert office.target("audit", "verify").returncode == 0
    shown = json.loads(office.host("audit", "show", "--json").stdout)
    assert len([r for r in shown if r["event"] == "spent"]) == len(office.spent_pairs())


def test_a_host_that_stops_signs_the_head_of_its_accounts_on_the_hsm(office):
    office.host_agent.stop()
    found = json.loads(office.host("audit", "verify", "--json", given=office.hsm_pin).stdout)
    assert found["whole"]
    assert found["signed"] == found["records"] > 0
    key = office.world.host.directory / "accounts.pem"
    key.write_text(office.host("audit", "key", given=office.hsm_pin).stdout)
    assert office.host("audit", "verify", "--key", str(key)).returncode == 0
    office.host_agent = office.serve_host()


def test_both_ends_explain_the_same_request(office):
    request_id = office.tunnels()[0]["request_id"]
    ours = json.loads(office.host("audit", "explain", request_id, "--json").stdout)
    theirs = json.loads(office.target("audit", "explain", request_id, "--json").stdout)
    assert ours[:2] == [{**link, "records": ours[0]["records"]} for link in theirs[:2]]
    assert [link["link"] for link in ours[2:5]] == ["user", "Host", "Target"]
    assert not any(link["differs"] for link in ours + theirs)

"""The Host's HSM, and the traveller's token, go away in the middle of the work and come back.

SoftHSM2's files are moved away and put back, so that sessions and object handles die as
they do when a token is pulled.
"""

import json

import pytest

from carnet.wire import cbor
from carnet.wire.envelope import seal_request
from carnet.wire.suites import P256
from lab.http_client import request
from lab.office import HOST_URL
from tests.lab.offices import FILE, FILE_URL, is_one_sentence, office_at_work
from tests.lab.test_recovery import connect_and_fetch
from tests.unit.examples import SoftwareKey, make_request

IMPATIENT = "patience = 2\n"


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=20, watched=False) as made:
        yield made


@pytest.fixture(autouse=True)
def disconnected(office):
    yield
    office.carnet("disconnect")


class Hsm:
    """The files of the Host's token, in their place or not."""

    def __init__(self, office):
        self.office = office
        self.files = office.world.host.directory / ".local/share/carnet/softhsm/tokens"
        self.away = self.files.with_name("away")

    def take_away(self):
        self.files.rename(self.away)
        self.files.mkdir()

    def put_back(self):
        self.files.rmdir()
        self.away.rename(self.files)

    def log(self, event):
        lines = self.office.host_agent.output().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def wait_until_told(self, event, before):
        self.office.host_agent.wait_for(lambda: len(self.log(event)) > before, event)


@pytest.fixture
def hsm(office):
    made = Hsm(office)
    yield made
    if made.away.exists():
        made.put_back()


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


def valid_pair(office):
    return next(pair["key_id"] for pair in office.pairs() if pair["state"] == "valid")


def rubbish_under(key_id):
    """Make a request that opens under no pair of the office, in the name of one."""
    stranger = SoftwareKey()
    version, suite, _, sealed = cbor.decode(
        seal_request(make_request(), stranger.public_key, P256, stranger)
    )
    return cbor.encode([version, suite, bytes.fromhex(key_id), sealed])


def test_an_hsm_that_is_away_is_said_and_costs_nothing(office, hsm, one_pair):
    lost, back = len(hsm.log("hsm-lost")), len(hsm.log("hsm-in-service"))
    spent = office.spent_pairs()
    hsm.take_away()
    done = office.carnet("connect", extra=office.configure_client(IMPATIENT))
    assert done.returncode == 6
    assert is_one_sentence(done)
    assert "in trouble with its own token" in done.stderr
    hsm.wait_until_told("hsm-lost", lost)
    answer = request(office.world.client, "POST", f"{HOST_URL}/v1/requests",
                     rubbish_under(valid_pair(office)))  # fmt: skip
    headers = dict(answer.headers)
    assert (answer.status, answer.body) == (503, b"")
    assert (headers["Retry-After"], headers["Carnet-Reason"]) == ("2", "host-not-ready")
    assert office.spent_pairs() == spent
    hsm.put_back()
    hsm.wait_until_told("hsm-in-service", back)
    connect_and_fetch(office)


def test_a_client_that_waits_gets_its_tunnel_when_the_hsm_is_back(office, hsm, one_pair):
    hsm.take_away()
    connecting = office.start_connect()
    connecting.wait_for_line("trying again")
    hsm.put_back()
    assert connecting.wait(60) == 0, connecting.output()
    assert request(office.world.client, "GET", FILE_URL).body == FILE


def test_an_hsm_lost_between_spending_and_sealing_leaves_the_request_to_be_taken_up(
    office, hsm, one_pair
):
    spent, lost = office.spent_pairs(), len(hsm.log("hsm-lost"))
    office.target_agent.freeze()
    connecting = office.start_connect()
    office.host_agent.wait_for(lambda: office.spent_pairs() != spent, "step 3")
    hsm.take_away()
    office.target_agent.thaw()
    hsm.wait_until_told("hsm-lost", lost)
    (key_id,) = set(office.spent_pairs()) - set(spent)
    (pair,) = [pair for pair in office.pairs() if pair["key_id"] == key_id]
    assert pair["outcome"] is None
    hsm.put_back()
    assert connecting.wait(60) == 0, connecting.output()
    assert request(office.world.client, "GET", FILE_URL).body == FILE


def test_what_nobody_asks_for_any_more_is_answered_when_the_hsm_is_back(office, hsm, one_pair):
    """The Client has given up meanwhile; its next run finds the answer stored."""
    spent, lost = office.spent_pairs(), len(hsm.log("hsm-lost"))
    office.target_agent.freeze()
    connecting = office.start_connect(extra=office.configure_client(IMPATIENT))
    office.host_agent.wait_for(lambda: office.spent_pairs() != spent, "step 3")
    hsm.take_away()
    office.target_agent.thaw()
    hsm.wait_until_told("hsm-lost", lost)
    assert connecting.wait(60) == 6, connecting.output()
    # Nor is Target asked meanwhile, for an answer that could not be sealed.
    office.target_agent.freeze()
    again = office.carnet("connect", extra=office.configure_client(IMPATIENT))
    office.target_agent.thaw()
    assert "in trouble with its own token" in again.stderr
    (key_id,) = set(office.spent_pairs()) - set(spent)
    hsm.put_back()
    office.host_agent.wait_for(
        lambda: [p["outcome"] for p in office.pairs() if p["key_id"] == key_id] == ["granted"],
        "the answer",
    )
    connect_and_fetch(office)


def test_a_key_is_destroyed_when_the_hsm_is_back_and_not_said_to_be_before(office, hsm):
    key_id, lost = valid_pair(office), len(hsm.log("hsm-lost"))
    hsm.take_away()
    request(office.world.client, "POST", f"{HOST_URL}/v1/requests", rubbish_under(key_id))
    hsm.wait_until_told("hsm-lost", lost)
    office.host("revoke", "--key", key_id, "--reason", "a test")
    assert key_id not in {line["key_id"] for line in hsm.log("key-destroyed")}
    hsm.put_back()
    office.host_agent.wait_for(
        lambda: key_id in {line["key_id"] for line in hsm.log("key-destroyed")}, "the sweep"
    )
    assert key_id not in office.keys_on(office.world.host)


def test_a_host_that_starts_without_its_hsm_waits_for_it(office, hsm, one_pair):
    office.host_agent.stop()
    hsm.take_away()
    office.host_agent = office.serve_host()
    assert "No token was found" in hsm.log("hsm-away")[0]["reason"]
    done = office.carnet("connect", extra=office.configure_client(IMPATIENT))
    assert done.returncode == 6
    back = len(hsm.log("hsm-in-service"))
    hsm.put_back()
    hsm.wait_until_told("hsm-in-service", back)
    connect_and_fetch(office)


def test_damaged_files_on_the_hsm_cost_their_own_pairs_only(office, hsm):
    """Empty and cut files, as a kill or a power cut leaves them: serving goes on."""
    office.host_agent.stop()
    left = valid_pair(office)
    (token,) = hsm.files.iterdir()
    for number, name in enumerate(("zero", "half")):
        path = next(p for p in sorted(token.glob("*.object")) if p.name != "token.object")
        whole = path.read_bytes()
        (token / f"0000000{number}-0000-0000-0000-00000000{name}.object").write_bytes(
            whole[: len(whole) // 2 * number]
        )
    office.host_agent = office.serve_host()
    connect_and_fetch(office)
    assert left in office.spent_pairs()
    assert office.import_batch()["new"] == 0


@pytest.fixture
def pulled(office):
    """Lets a test pull the traveller's token out, and plug it in again."""
    away = office.world.token.with_name("pulled")
    yield lambda: office.world.token.rename(away), lambda: away.rename(office.world.token)
    if away.exists():
        away.rename(office.world.token)


def test_a_token_pulled_before_the_answer_is_one_sentence_and_loses_nothing(
    office, one_pair, pulled
):
    pull, plug = pulled
    office.host_agent.freeze()
    connecting = office.start_connect()
    run = office.world.client.path("/run")
    connecting.wait_for(lambda: any(run.rglob("*pending*")), "the request to be sent")
    pull()
    office.host_agent.thaw()
    assert connecting.wait(60) == 4, connecting.output()
    said = connecting.output().strip().splitlines()[-1]
    assert said.startswith("carnet: "), connecting.output()
    assert "was pulled out" in said
    assert "Traceback" not in connecting.output()
    plug()
    connect_and_fetch(office)


def test_the_accounts_of_all_this_are_whole(office):
    assert office.host("audit", "verify", given=office.hsm_pin).returncode == 0
    assert office.target("audit", "verify").returncode == 0

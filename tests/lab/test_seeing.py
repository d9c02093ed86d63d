"""Looking at an office at work: what observers of Host and Target see, and what people see."""

import json
import signal
import threading
from collections import Counter
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import pytest

from carnet.ipsec.vici_link import open_session, text
from lab.network import HOST_ADDRESS
from lab.office import HOST_PORT
from lab.terminal import Terminal
from lab.waiting import wait_until
from tests import observers
from tests.lab.offices import office_at_work
from tests.lab.test_connect import eavesdrop
from tests.notified import manager

CAP_NET_ADMIN = 12
RELOADED = '"event": "reloaded"'
RELOADS = 5
LIMIT = '# per_address = "60/10 second"'


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=15) as made:
        yield made


@pytest.fixture(scope="module")
def target(office):
    return office.world.target.directory / "var" / "observers.sock"


@pytest.fixture(scope="module")
def host(office):
    return office.world.host.directory / "var" / "observers-8470.sock"


@pytest.fixture
def connected(office):
    assert office.carnet("connect").returncode == 0
    (tunnel,) = office.live_tunnels()
    office.target_agent.wait_for_line(f'"{tunnel["request_id"]}".*"event": "established"')
    yield tunnel
    office.carnet("disconnect")
    office.target_agent.wait_for_line(f'"{tunnel["request_id"]}".*"event": "ended"')


def test_both_agents_count_a_session_and_time_its_steps(office, connected, host, target):
    seen = observers.metrics(target)
    assert seen["carnet_target_tunnels", "esp", "established"] == 1
    assert seen["carnet_target_requests_total", "granted"] >= 1
    assert seen["carnet_target_virtual_addresses", "4", "taken"] == 1
    for step in ("step4", "step5", "step6"):
        assert seen["carnet_target_step_seconds_sum", step] > 0
    at_host = observers.metrics(host)
    assert at_host["carnet_host_requests_total", "granted"] >= 1
    assert at_host["carnet_host_step_seconds_sum", "target"] > 0


def test_no_tunnel_is_counted_when_it_is_over(office, target):
    seen = observers.metrics(target)
    tunnels = {key: n for key, n in seen.items() if key[0] == "carnet_target_tunnels"}
    assert set(tunnels.values()) == {0}
    assert seen["carnet_target_virtual_addresses", "4", "taken"] == 0


def test_every_line_of_a_request_names_it_at_both_ends(office, connected):
    request_id = connected["request_id"]
    of_pair = f'"key_id": "{connected["key_id"]}"'
    office.host_agent.wait_for_line(f'{of_pair}, "event": "key-destroyed"')
    lines = office.host_agent.output().splitlines()
    assert all(request_id in line for line in lines if of_pair in line)
    said = [line for line in office.target_agent.output().splitlines() if request_id in line]
    assert len(said) >= 2


def test_target_is_ready_while_its_ike_daemon_answers(office, target):
    assert observers.ready(target) == (True, {"database": "ok", "ike-daemon": "ok"})
    office.target_charon.stop()
    try:
        wait_until(lambda: not observers.ready(target)[0], "Target not to be ready")
        well, parts = observers.ready(target)
        assert (well, parts["database"]) == (False, "ok")
        assert "start it" in parts["ike-daemon"]
        assert observers.ask(target, "/healthz") == (200, '{"failed": []}')
    finally:
        office.target_charon.start()
    wait_until(lambda: observers.ready(target)[0], "Target to be ready again")
    wait_until(
        lambda: observers.metrics(target)["carnet_target_ike_daemon_errors_total",] >= 1,
        "the daemon's absence to be counted",
    )


def rekey(office):
    """Have the Client's daemon change the keys of packets, and wait until it has."""

    def made():
        with open_session(office.client_charon.vici) as session:
            sas = [item for each in session.list_sas() for item in text(each).items()]
        # One that was rekeyed is listed until its peer agrees that it is deleted.
        ((name, ike_sa),) = [(name, sa) for name, sa in sas if sa["state"] == "ESTABLISHED"]
        return name, [c["uniqueid"] for c in ike_sa["child-sas"].values()]

    name, (first,) = made()
    with open_session(office.client_charon.vici) as session:
        session.rekey({"child": name})
    wait_until(lambda: made()[1] not in ([], [first]) and first not in made()[1], "new keys")


def test_status_knows_of_the_pairs_that_later_connects_spent(office, connected):
    before = office.valid_pairs()
    assert office.carnet("connect", "--network", "192.0.2.0/24").returncode == 3
    (seen,) = json.loads(office.carnet("status", "--json").stdout)
    assert seen["pairs_left"] == office.valid_pairs() == before - 1


def test_status_tells_all_of_a_tunnel_at_both_ends(office, connected):
    rekey(office)
    (seen,) = json.loads(office.carnet("status", "--json").stdout)
    live = seen["live"]
    assert (seen["objective"], live["ppk"], live["rekeys"]) == ("esp", True, 1)
    assert seen["pairs_left"] == office.valid_pairs()
    assert 0 < seen["seconds_left"] <= 8 * 3600
    assert live["virtual_address"] == connected["virtual_address"]
    shown = office.carnet("status").stdout
    for what in ("ESP aes256gcm16", ", post-quantum key", "rekeyed once", "left",
                 f"{seen['pairs_left']} key pairs left on token alice"):  # fmt: skip
        assert what in shown
    (at_target,) = office.facts(office.world.target, *office._target_argv(), "tunnels", "list")
    assert at_target["live"]["rekeys"] == 1
    assert at_target["live"]["child_suite"] == live["child_suite"]
    assert 0 < at_target["seconds_left"] <= 8 * 3600
    table = office.target("tunnels", "list").stdout
    assert "ESP aes256gcm16" in table
    assert at_target["live"]["remote_address"] in table


def test_what_the_daemon_counted_is_forgotten_with_the_tunnel(office):
    for charon in (office.client_charon, office.target_charon):
        with open_session(charon.vici) as session:
            assert text(session.get_counters({"all": "yes"}))["counters"] == {}


def test_tunnels_are_listed_also_while_the_daemon_is_away(office, connected):
    office.target_charon.stop()
    try:
        done = office.target("tunnels", "list", "--all", "--json")
    finally:
        office.target_charon.start()
    assert json.loads(done.stdout)
    assert "cannot be told" in done.stderr


def test_watching_follows_what_happens_until_it_is_interrupted(office):
    """As JSON, a line a second: a tunnel comes and goes."""
    world = office.world
    watching = world.client.start(["carnet", "status", "--watch", "--json"], log="watching.log")
    watching.wait_for_line(r"^\[\]$")
    office.carnet("connect")
    watching.wait_for_line('"up": true')
    seen = len(watching.output())
    office.disconnect()
    watching.wait_for(lambda: "\n[]\n" in watching.output()[seen - 1 :], "the end")
    watching.signal(signal.SIGINT)
    assert watching.wait() == 0
    lines = [json.loads(line) for line in watching.output().splitlines()]
    assert {len(states) for states in lines} == {0, 1}


def test_watching_outlives_the_ike_daemon(office):
    argv = ["carnet", "status", "--watch"]
    watching = office.world.client.start(argv, log="outliving.log")
    try:
        watching.wait_for_line("^No tunnel")
        office.client_charon.stop()
        try:
            watching.wait_for_line("strongSwan")
        finally:
            office.client_charon.start()
        watching.wait_for(lambda: watching.output().count("No tunnel") >= 2, "the daemon again")
    finally:
        watching.signal(signal.SIGINT)
        assert watching.wait() == 0


def test_people_watch_on_a_screen(office, connected):
    screen = Terminal(office.world.client, ["carnet", "status", "--watch"], {})
    screen.type_until("work  alice@office  esp")
    screen.close()


def test_where_there_is_no_screen_what_is_new_is_shown(office, connected):
    watching = office.world.client.start(["carnet", "status", "--watch"], log="screen.log")
    watching.wait_for_line("work  alice@office  esp")
    watching.signal(signal.SIGTERM)
    assert watching.wait() == 0


@contextmanager
def again_and_again(work):
    """Do something in a thread of its own, as often as it can be done; yield what it returned."""
    over, returned = threading.Event(), []

    def repeat():
        while not over.is_set():
            returned.append(work())

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield returned
    finally:
        over.set()
        thread.join()


def reload_both(office):
    """Have both agents read their configuration again, and wait until they have."""
    for agent in (office.host_agent, office.target_agent):
        reload(agent)


def reload(agent):
    seen = agent.output().count(RELOADED)
    agent.signal(signal.SIGHUP)
    agent.wait_for(lambda: agent.output().count(RELOADED) > seen, "its new configuration")


def outcomes(*observed):
    """Return how often requests came out how, at Host and Target."""
    found = [observers.metrics(path) for path in observed]
    return [Counter({k[1]: n for k, n in x.items() if "requests_total" in k[0]}) for x in found]


def send(office, body):
    """Send the Host a request; return the status and the body of its answer."""
    address = HOST_ADDRESS, HOST_PORT
    with office.world.client.network(), closing(HTTPConnection(*address, timeout=30)) as host:
        host.request("POST", "/v1/requests", body)
        answer = host.getresponse()
        return answer.status, answer.read()


def test_no_request_is_dropped_while_both_read_their_configuration_again(office, host, target):
    """The same bytes to the Host as fast as it answers, and new tunnels through both."""
    heard = eavesdrop(office)
    config = office.world.host.directory / "etc" / "host.toml"
    assert LIMIT in config.read_text()
    config.write_text(config.read_text().replace(LIMIT, 'per_address = "100000/second"'))
    reload_both(office)
    before = outcomes(host, target)
    with (
        again_and_again(partial(reload_both, office)) as reloads,
        again_and_again(partial(send, office, heard.request)) as answers,
    ):
        for _ in range(2):
            assert office.carnet("connect").returncode == 0
        wait_until(lambda: len(reloads) >= RELOADS, "some reloads")
    assert set(answers) == {(200, heard.answer)}
    came = [Counter(granted=2, repeated=len(answers)), Counter(granted=2)]

    def counted():
        now = outcomes(host, target)
        return [each - then for each, then in zip(now, before, strict=True)]

    wait_until(lambda: counted() == came, "what came of all of them, and of nothing else")
    office.disconnect()


def test_target_tells_a_service_manager_and_reads_its_configuration_again(office, tmp_path):
    """Confined as its unit confines it. A tunnel stands meanwhile, and another comes up."""
    path = office.world.target.directory / "etc" / "target.toml"
    assert office.carnet("connect").returncode == 0
    office.target_agent.stop()
    with manager(tmp_path) as heard:
        confined = ["python", "-m", "tests.confined", "carnet-target"]
        office.target_agent = office.world.target.start(
            [*confined, *office._target_argv(), "serve"],
            log="carnet-target.log",
            extra={**heard.environment, "WATCHDOG_USEC": "200000"},
        )
        heard.until("READY=1")
        status = Path(f"/proc/{office.target_agent.pid}/status").read_text()
        assert f"CapEff:\t{1 << CAP_NET_ADMIN:016x}\n" in status
        heard.until("WATCHDOG=1")
        path.write_text(path.read_text().replace("initiate_within = 120", "initiate_within = 60"))
        office.target_agent.signal(signal.SIGHUP)
        heard.until("RELOADING=1")
        heard.until("READY=1")
        office.target_agent.wait_for_line('"needs_start": \\[\\], "event": "reloaded"')
        assert office.carnet("connect").returncode == 0
        office.carnet("disconnect")
        office.target_agent.stop()
        heard.until("STOPPING=1")
    office.target_agent = office.serve_target()

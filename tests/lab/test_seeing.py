"""Looking at an office at work: what observers of Host and Target see, and what people see."""

import pytest

from lab.waiting import wait_until
from tests import observers
from tests.lab.offices import office_at_work


@pytest.fixture(scope="module")
def office(lane):
    with office_at_work(lane, pairs=6) as made:
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
    assert not [key for key in seen if key[0] == "carnet_target_tunnels"]
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

"""A Host as a service manager runs it: readiness, watchdog, reload, on the real process."""

import json
import signal
import socket
import sys
from pathlib import Path

import pytest

from carnet.database.place import FilePlace
from carnet.interface import BATCHES
from lab.waiting import wait_until
from tests.host.interface import host_with_interface
from tests.host.real_host import http, read_all, status_of
from tests.host.test_observers import next_request
from tests.notified import manager

CONFINED = sys.executable, "-m", "tests.confined", "carnet-host"


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    with manager(tmp_path_factory.mktemp("manager")) as made:
        yield made


@pytest.fixture(scope="module")
def host(tmp_path_factory, heard):
    """A Host that a manager started, and heard of that it is ready; three pairs of alice's."""
    directory = tmp_path_factory.mktemp("supervised")
    place = FilePlace(directory / "keys.sqlite")
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        host_with_interface(directory, place, monkeypatch) as made,
    ):
        made.start(*CONFINED, **heard.environment, WATCHDOG_USEC="200000")
        assert heard.until("READY=1") == ["READY=1"]
        made.ask("POST", BATCHES, made.officer.sign(made.paired_batch(3)))
        yield made


def configure(host, old, new):
    text = host.config.read_text()
    assert old in text
    host.config.write_text(text.replace(old, new))


def reload(host, heard):
    """Have it read its configuration again; return what it says of that in the log."""
    host.process.send_signal(signal.SIGHUP)
    heard.until("RELOADING=1")
    heard.until("READY=1")
    lines = [json.loads(line) for line in host.said().splitlines()]
    return [each for each in lines if "reloaded" in each["event"]][-1]


def send(host, body):
    with socket.create_connection(("127.0.0.1", host.requests), 30) as connection:
        connection.sendall(http(body))
        return status_of(read_all(connection))


def test_it_says_again_and_again_that_it_is_well(host, heard):
    for _ in range(3):
        heard.until("WATCHDOG=1")


def test_a_request_goes_on_while_the_configuration_is_read_again(host, heard):
    sealed, _ = next_request(host)
    whole = http(sealed)
    with socket.create_connection(("127.0.0.1", host.requests), 30) as connection:
        connection.sendall(whole[:-50])
        assert reload(host, heard)["needs_start"] == []
        connection.sendall(whole[-50:])
        assert status_of(read_all(connection)) == 200


def test_what_can_be_taken_over_is_and_the_rest_is_named(host, heard):
    configure(host, 'name = "office"', 'name = "office"\nsuites = ["p-384"]')
    configure(host, f"port = {host.port}\n", "port = 1\n")
    sealed, _ = next_request(host)
    try:
        assert reload(host, heard)["needs_start"] == ["interface"]
        assert send(host, sealed) == 403
    finally:
        configure(host, '\nsuites = ["p-384"]', "")
        configure(host, "port = 1\n", f"port = {host.port}\n")
        assert reload(host, heard)["needs_start"] == []
    assert send(host, sealed) == 200


def test_a_target_that_is_added_is_asked_for_tunnels_that_ended(host, heard):
    added = '\n[targets.annex]\nurl = "https://127.0.0.1:1"\n'
    configure(host, "\n[targets.work]", f"{added}[targets.work]")
    try:
        reload(host, heard)
        wait_until(lambda: '"target": "annex"' in host.said(), "the new Target to be asked")
    finally:
        configure(host, f"{added}[targets.work]", "\n[targets.work]")
        reload(host, heard)


@pytest.mark.parametrize("wrong", ["port = -1", 'certificate = "nowhere.crt"'])
def test_a_configuration_that_is_wrong_changes_nothing(host, heard, wrong):
    right = f"port = {host.requests}" if "port" in wrong else 'certificate = "host.crt"'
    configure(host, right, wrong)
    try:
        said = reload(host, heard)
        assert said["event"] == "not-reloaded"
        assert "Traceback" not in json.dumps(said)
    finally:
        configure(host, wrong, right)
    assert send(host, b"nothing") == 403


def test_it_has_no_capability(host):
    """As its unit has it; what it does here it does without."""
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    held = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Cap"))
    assert set(held.values()) == {"0" * 16}


def test_it_says_that_it_stops(host, heard):
    host.stop()
    heard.until("STOPPING=1")
    assert host.process.returncode == 0


def test_it_answers_and_ends_well_where_its_log_takes_nothing(host, heard):
    """As on a disk that is full."""
    host.stop()
    with Path("/dev/full").open("wb") as full:
        host.begin(full, *CONFINED, **heard.environment)
    heard.until("READY=1")
    sealed, _ = next_request(host)
    assert [send(host, b"nothing"), send(host, sealed)] == [403, 200]
    host.stop()
    assert host.process.returncode == 0

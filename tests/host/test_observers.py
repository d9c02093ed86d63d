"""A Host seen from outside: what it counts, whether it lives, whether it is ready, its log."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest
from sqlalchemy.exc import SQLAlchemyError

from carnet.database import check_writable
from carnet.database.place import FilePlace
from carnet.interface import BATCHES
from carnet.token.onetime import OneTimeKeys
from carnet.wire.envelope import seal_request
from carnet.wire.suites import P256
from host_agent.hsm_states import State
from host_agent.metrics import HostMetrics
from lab.waiting import wait_until
from tests import observers
from tests.commands import start
from tests.host.conftest import new_pair
from tests.host.interface import host_with_interface
from tests.host.real_host import http, read_all, status_of
from tests.target.conftest import free_port
from tests.unit.examples import SoftwareKey, make_request

USER = "alice@office"
PAIRS = 4
REQUESTS = "carnet_host_requests_total"
COMMAND = Path(sys.executable).parent / "carnet-host"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A Host that serves, with four pairs of alice's."""
    directory = tmp_path_factory.mktemp("seen")
    place = FilePlace(directory / "keys.sqlite")
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        host_with_interface(directory, place, monkeypatch) as made,
    ):
        made.start()
        made.ask("POST", BATCHES, made.officer.sign(made.paired_batch(PAIRS)))
        yield made


@pytest.fixture
def socket_path(host):
    return host.directory / "state" / f"observers-{host.requests}.sock"


def send(host, body):
    with socket.create_connection(("127.0.0.1", host.requests), 30) as connection:
        connection.sendall(http(body))
        return status_of(read_all(connection))


def next_request(host):
    """Return the next sealed request, for a Target that the Host does not know, and its ID."""
    request_id = os.urandom(16)
    with host.session("alice") as session:
        keys = OneTimeKeys(session)
        key = keys.private_key(keys.pairs()[0].key_id)
        request = make_request(target="elsewhere", request_id=request_id)
        sealed = seal_request(request, key.pair.public_key, P256, key)
        keys.destroy(key.pair.key_id)
    return sealed, request_id


@pytest.fixture
def second(host):
    """Another process of the same Host, at a port of its own."""
    port = free_port()
    config = host.config.with_name("second.toml")
    without_interface = re.sub(r"\[interface\](\n[^\[].*)*\n", "", host.config.read_text())
    config.write_text(without_interface.replace(f"port = {host.requests}", f"port = {port}"))
    log = host.directory / "second.log"
    with log.open("wb") as output:
        argv = [COMMAND, "--config", config, "serve", "--pin-file", host.directory / "pin"]
        process = start(argv, os.environ, output)
    try:
        wait_until(lambda: '"event": "ready"' in log.read_text(), "the second to be ready", 60)
        yield SimpleNamespace(requests=port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_processes_count_what_is_theirs_and_agree_on_what_is_shared(host, second, socket_path):
    its_socket = socket_path.with_name(f"observers-{second.requests}.sock")
    sealed, _ = next_request(host)
    assert [send(process, sealed) for process in (second, host)] == [200, 200]
    left = host.counts()["valid"]
    for path in (socket_path, its_socket):
        # Who has counted them just now tells the same number for a while.
        wait_until(
            lambda path=path: observers.metrics(path)["carnet_host_pairs_left", USER] == left,
            "both to tell the same number of pairs", 30,
        )  # fmt: skip
    counted = {key[1] for key in observers.metrics(its_socket) if key[0] == REQUESTS}
    assert counted == {"unknown-target"}
    assert observers.metrics(socket_path)[REQUESTS, "repeated"] == 1


def lines(host):
    return [json.loads(line) for line in host.said().splitlines()]


def test_requests_are_counted_by_outcome_and_timed_step_by_step(host, socket_path):
    before = observers.metrics(socket_path)
    sealed, _ = next_request(host)
    assert [send(host, body) for body in (sealed, sealed, b"nothing")] == [200, 200, 403]
    now = observers.metrics(socket_path)

    def more(*key):
        return now[key] - before.get(key, 0)

    counted = {each: more("carnet_host_requests_total", each) for each in
               ("unknown-target", "repeated", "rejected")}  # fmt: skip
    assert counted == {"unknown-target": 1, "repeated": 1, "rejected": 1}
    assert more("carnet_host_request_seconds_count") == 2
    for step in ("step2", "step3", "target", "step7"):
        assert more("carnet_host_step_seconds_count", step) == 1
        assert now["carnet_host_step_seconds_sum", step] > 0
    wait_until(
        lambda: observers.metrics(socket_path)["carnet_host_queue_length", "requests"] == 0,
        "the requests to be done with",
    )


def test_observers_come_in_by_a_socket_of_the_owner_alone(host, socket_path):
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    for what in ("/metrics", "/healthz", "/readyz"):
        with socket.create_connection(("127.0.0.1", host.requests), 30) as connection:
            connection.sendall(http(line=f"GET {what} HTTP/1.1"))
            assert status_of(read_all(connection)) == 403


def test_every_line_of_a_request_names_it(host):
    """From where the HSM has opened it: until then nobody knows its Request ID."""
    sealed, request_id = next_request(host)
    assert send(host, sealed) == 200
    wait_until(lambda: request_id.hex() in host.said(), "the request to be named in the log")
    (line,) = [each for each in lines(host) if each.get("request_id") == request_id.hex()]
    assert line["event"] == "key-destroyed"
    of_pair = [each for each in lines(host) if each.get("key_id") == line["key_id"]]
    assert {each.get("request_id") for each in of_pair} == {request_id.hex()}


def test_it_is_ready_while_the_hsm_is_there_and_again_when_it_is_back(host, socket_path):
    tokens = host.directory / "softhsm" / "tokens"
    away = tokens.with_name("away")
    assert observers.ready(socket_path) == (True, {"database": "ok", "token": "ok"})
    seen = observers.metrics(socket_path)
    assert seen["carnet_host_token_errors_total", "lost"] == 0
    assert seen["carnet_host_background_failures_total", "sweep"] == 0
    tokens.rename(away)
    tokens.mkdir()
    try:
        wait_until(lambda: not observers.ready(socket_path)[0], "the Host not to be ready", 30)
        well, parts = observers.ready(socket_path)
        assert (well, parts["database"]) == (False, "ok")
        assert "HSM" in parts["token"] or "token" in parts["token"]
        assert observers.ask(socket_path, "/healthz") == (200, '{"failed": []}')
        assert observers.metrics(socket_path)["carnet_host_token_errors_total", "lost"] == 1
    finally:
        tokens.rmdir()
        away.rename(tokens)
    wait_until(lambda: observers.ready(socket_path)[0], "the Host to be ready again", 60)


class TestCounting:
    """The count of pairs, by itself."""

    @pytest.fixture
    def shown(self, database):
        metrics = HostMetrics()
        hsm = SimpleNamespace(state=State.IN_SERVICE, waiting=0)
        metrics.show_host(database, hsm, lambda: 0)

        def shown():
            asyncio.run(metrics.refresh())
            return generate_latest(metrics.registry).decode()

        return shown

    def test_a_user_without_a_valid_pair_has_none_left(self, database, shown, pair, other_pair):
        database.revoke("stolen", user_id=USER)
        assert observers.samples(shown())["carnet_host_pairs_left", USER] == 0

    def test_no_user_can_write_metrics(self, database, shown):
        wicked = 'eve"} 1\ncarnet_host_pairs_left{user="alice@office'
        database.add_pairs([new_pair(SoftwareKey(), user_id=wicked)])
        found = observers.samples(shown())
        named = {key: value for key, value in found.items() if key[0] == "carnet_host_pairs_left"}
        assert named == {("carnet_host_pairs_left", wicked): 1}

    def test_however_often_it_is_asked_the_pairs_are_counted_once(self, database, shown, pair):
        shown()
        database.add_pairs([new_pair(SoftwareKey())])
        assert observers.samples(shown())["carnet_host_pairs_left", USER] == 1


def test_a_database_that_takes_no_write_is_not_writable(database, place):
    check_writable(database.engine)
    forbid = (
        "PRAGMA query_only=ON"
        if isinstance(place, FilePlace)
        else "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"
    )
    with database.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        raw.cursor().execute(forbid)
        raw.commit()
    with pytest.raises(SQLAlchemyError):
        check_writable(database.engine)

"""A machine that has no file system in memory: no record, no agent, and no tunnel left behind."""

import json
from tempfile import TemporaryDirectory

import pytest

from lab.http_client import request
from lab.office import pipes
from lab.waiting import wait_until
from tests.lab.offices import FILE, FILE_URL, office_at_work

STOP_ONCE_IT_STANDS = """
import os, signal
from carnet import crash
def reach(place):
    if place == "client.established":
        os.kill(os.getpid(), signal.SIGSTOP)
crash.reach = reach
from token_client.cli import main
main()
"""
TAKEN = ("/run/user/0/carnet", "/run/carnet-client")
"""Directories that somebody else has made, as far as a program can tell."""


@pytest.fixture(scope="module")
def office(lane):
    with TemporaryDirectory(dir="/var/tmp") as on_disk, office_at_work(lane, pairs=8) as made:
        client = made.world.client
        for directory in TAKEN:
            client.run(["mkdir", "-p", "-m", "0755", directory])
        client.run(["mount", "--bind", on_disk, "/dev/shm"])  # noqa: S108
        yield made


@pytest.fixture(autouse=True)
def no_tunnel_before(office):
    yield
    office.carnet("disconnect")


def carries(office):
    return request(office.world.client, "GET", FILE_URL).body == FILE


def pull(office):
    """Pull the token, also under a session that is open."""
    office.pull_out(office.world.client)
    tokens = office.world.token / "tokens"
    tokens.rename(tokens.with_name("away"))


@pytest.fixture
def put_back(office):
    yield
    away = office.world.token / "away"
    away.rename(away.with_name("tokens"))
    office.plug_in(office.world.client)


def test_it_is_said_that_nobody_watches(office):
    done = office.carnet("connect")
    assert done.returncode == 0
    assert "nobody notices if the token is pulled" in done.stderr
    assert carries(office)
    (tunnel,) = json.loads(office.carnet("status", "--json").stdout)
    assert not tunnel["recorded"]


@pytest.mark.usefixtures("put_back")
def test_a_token_pulled_in_the_middle_ends_the_tunnel_that_stands(office):
    assert office.carnet("connect").returncode == 0
    assert carries(office)
    office.host_agent.stop()
    process = office.start_connect()
    process.wait_for_line("no answer yet")
    pull(office)
    office.host_agent = office.serve_host()
    assert process.wait(60) == 4
    assert "Token alice was pulled out, in the middle" in process.output().splitlines()[-1]
    assert not carries(office)


@pytest.mark.usefixtures("put_back")
def test_a_token_pulled_as_the_tunnel_comes_up_ends_it(office):
    with pipes({"pin": office.secrets.pin}) as (options, fds):
        process = office.world.client.start(
            ["python", "-c", STOP_ONCE_IT_STANDS, "connect", *options],
            log="stopped.log",
            pass_fds=fds,
        )
    wait_until(process.is_stopped, "the tunnel to come up", 60)
    assert carries(office)
    pull(office)
    process.thaw()
    assert process.wait(60) == 4
    assert "Token alice was pulled out, so the tunnel" in process.output().splitlines()[-1]
    assert not carries(office)

"""Custody `paired` where the officer's station has both tokens plugged in."""

import stat
import sys
from pathlib import Path

import pytest

from tests.commands import run
from tests.provisioning.workplace import SECRETS

HOST = Path(sys.executable).with_name("carnet-host")
CONFIGURATION = """
name = "office"
listen = "127.0.0.1"
port = 8470
directory = "state"
officer = "officer/officer.crt"
[token]
token = "hsm"
[link]
certificate = "host-link/link.crt"
key = "host-link/link.key"
authority = "officer/officer.crt"
[targets.work]
url = "https://127.0.0.1:1"
"""
INTERRUPTED_AS_AN_ATTRIBUTE_IS_PACKED = """
import os, signal, sys
from pkcs11 import Attribute
from pkcs11.attributes import AttributeMapper
handler = AttributeMapper._handler
def interrupted(self, key):
    if key is Attribute.EC_PARAMS:
        AttributeMapper._handler = handler
        os.kill(os.getpid(), signal.SIGINT)
    return handler(self, key)
AttributeMapper._handler = interrupted
from host_agent.entry import main
main()
"""


@pytest.fixture
def station(ready):
    """A workplace with both tokens in its readers, and a Host's configuration."""
    ready.token_init(label="hsm")
    link = ["certificates", "host", "office", "--out", ready.directory / "host-link"]
    assert ready.run(*link, secrets=["passphrase"]).returncode == 0
    (ready.directory / "host.toml").write_text(CONFIGURATION)
    (ready.directory / "state").mkdir(mode=0o700)
    return ready


def on_hsm(station, *arguments):
    """Run a `carnet-host` that uses the HSM at the station."""
    environment = station.environment | {"CARNET_PIN": SECRETS["pin"]}
    done = run([HOST, "--config", station.directory / "host.toml", *arguments], environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_tokens_at_the_officers_station(station):
    key = station.directory / "both.pem"
    key.write_text(on_hsm(station, "transport-key"))
    order = station.order(host_transport_key=key)
    assert "choose one with --token" in station.refusal(4, *order, secrets=["pin", "passphrase"])
    station.mint("--token", "alice", host_transport_key=key)
    batch = station.directory / "batch"
    assert stat.S_IMODE(batch.stat().st_mode) == 0o600
    assert "3 new key pairs for alice@office" in on_hsm(station, "import", batch)
    assert "0 new key pairs for alice@office; 3 known" in on_hsm(station, "import", batch)
    listed = station.facts("list", "--token", "alice", secrets=["pin"])
    assert len(listed["pairs"]) == 3
    assert on_hsm(station, "keys").split()[:3] == ["alice@office", "valid", "3"]


def test_an_interrupt_as_an_attribute_is_packed_crashes_no_command_of_the_host(station):
    """With memory that is never zero by chance; see test_interruption."""
    environment = station.environment | {"CARNET_PIN": SECRETS["pin"], "PYTHONMALLOC": "debug"}
    host = ["--config", station.directory / "host.toml", "transport-key"]
    command = [sys.executable, "-c", INTERRUPTED_AS_AN_ATTRIBUTE_IS_PACKED, *host]
    done = run(command, environment)
    assert done.returncode in {0, 130}, done.stderr  # it may be done before it is interrupted
    assert "BEGIN PUBLIC KEY" in on_hsm(station, "transport-key")

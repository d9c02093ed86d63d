"""Who waits to watch over a tunnel while `carnet connect` brings it up."""

import os
import select
import shlex
import signal
import subprocess
import sys

import pytest

from tests.unit.test_sessions import a_session
from token_client import background, heir
from token_client.config import ClientConfig
from token_client.heir import Heir

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_sessions import a_session
from token_client import background, heir
from token_client.config import ClientConfig

background.command_of = lambda _: sys.argv[2:]
heir.memory_directory = lambda: Path(sys.argv[1])
made = heir.Heir(ClientConfig())
made.stand_by(a_session())
os.kill(os.getpid(), signal.SIGKILL)
"""


LIMIT = 20.0
"""Seconds after which nothing more is waited for."""


@pytest.fixture
def tells(tmp_path, monkeypatch):
    """The fifo to which the agent writes as it begins."""
    path = tmp_path / "begun"
    os.mkfifo(path)
    command = ["sh", "-c", f"echo begun > {shlex.quote(str(path))}"]
    monkeypatch.setattr(background, "command_of", lambda _: command)
    monkeypatch.setattr(heir, "memory_directory", lambda: tmp_path)
    return path, command


def told(path):
    """Return what the agent has written, and an empty text where none begins in time."""
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(reading) as fifo:
        begun, _, _ = select.select([fifo], [], [], LIMIT)
        return fifo.read() if begun else ""


def test_it_begins_where_the_command_is_killed(tells, tmp_path):
    path, command = tells
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, *command], check=False)
    assert done.returncode == -signal.SIGKILL
    assert told(path) == "begun\n"


def test_it_begins_when_the_tunnel_stands(tells):
    made = Heir(ClientConfig())
    made.stand_by(a_session())
    waiting = made._waiting
    assert os.getsid(waiting.pid) == waiting.pid  # what ends the command's terminal ends it not
    assert made.begin(a_session())
    assert told(tells[0]) == "begun\n"
    assert waiting.wait(LIMIT) == 0


def test_none_begins_where_nothing_is_left_to_watch_over(tells, tmp_path, monkeypatch):
    made = Heir(ClientConfig())
    monkeypatch.setattr(background, "command_of", lambda _: ["touch", str(tmp_path / "it began")])
    made.stand_by(a_session())
    waiting = made._waiting
    made.dismiss()
    assert waiting.wait(LIMIT) == 0
    assert not (tmp_path / "it began").exists()


@pytest.mark.parametrize("agent", [True, False])
def test_where_none_waits_one_is_started_as_ever(tells, monkeypatch, agent):
    started = []
    monkeypatch.setattr(background, "start", lambda session, _: not started.append(session.name))
    if agent:
        monkeypatch.setattr(subprocess, "Popen", no_program)
    made = Heir(ClientConfig(agent=agent))
    made.stand_by(a_session())
    assert made.begin(a_session())
    assert started == ["carnet-00"]


def no_program(*_, **__):
    raise BlockingIOError

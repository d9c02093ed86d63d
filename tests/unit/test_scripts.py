"""What `make` runs: a signal in the middle leaves nothing half done behind."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
POLICY = "/usr/sbin/policy-rc.d"
SIGNALS = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path):
    """A checkout of its own, and the directory for what is temporary."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts")
    (tmp_path / "tmp").mkdir()
    return tmp_path


def start_until(line, place, argv):
    """Start a command as a terminal would; return it as soon as it has said a line."""
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    process = subprocess.Popen(
        argv,
        cwd=place,
        env={"PATH": path, "TMPDIR": str(place / "tmp")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert any(said.strip() == line for said in process.stdout)
    return process


def end(process, number):
    """Send a signal to the command and all that it has started; return its exit status."""
    os.killpg(process.pid, number)
    process.communicate()
    return process.returncode


@pytest.mark.parametrize("number", SIGNALS)
def test_an_installation_that_is_cut_off_lets_packages_start_their_services_again(place, number):
    policy = place / "policy-rc.d"
    install = place / "scripts" / "install"
    text = install.read_text()
    assert POLICY in text
    install.write_text(text.replace(POLICY, str(policy)))
    (place / "debian-packages.txt").write_text("not-there-yet\n")
    write_program(place / "bin" / "id", "echo 0")
    write_program(place / "bin" / "dpkg-query", "exit 1")
    write_program(place / "bin" / "apt-get", "echo begun\nexec sleep 60")
    process = start_until("begun", place, [str(install)])
    assert policy.exists()
    assert end(process, number) == 128 + number
    assert not policy.exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_tests_that_are_cut_off_leave_no_directory(place, number):
    write_program(place / ".venv" / "bin" / "python", "echo begun\nexec sleep 60")
    process = start_until("begun", place, [str(place / "scripts" / "run-tests")])
    assert list((place / "tmp").iterdir())
    assert end(process, number) == 128 + number
    assert not list((place / "tmp").iterdir())

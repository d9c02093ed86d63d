"""The guest itself: what runs in it, what it may touch, and that nothing of it is left."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.guest import Guest
from lab.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.outside

BOOTED = 240
"""Seconds in which a guest has booted, also where others do so at the same time."""

MAKER = """
import sys
from pathlib import Path
from lab.guest import Guest
guest = Guest(["sleep", "1000"], Path("/"))
print(guest.directory, guest.pid, flush=True)
sys.stdin.read()
"""


def test_a_command_that_fails_is_a_failure_with_its_output():
    with Guest(["sh", "-c", "echo the reason; exit 3"], ROOT) as guest:
        assert guest.wait(BOOTED) == 3
        assert guest.said() == "the reason"
        directory = guest.directory
    assert not directory.exists()


POWER_OFF = "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)"


@pytest.mark.parametrize(
    "end",
    [
        [sys.executable, "-c", POWER_OFF],
        ["sh", "-c", "echo c > /proc/sysrq-trigger"],
    ],
    ids=["powered off", "panicked"],
)
def test_a_guest_that_ends_without_a_result_is_a_failure(end):
    with (
        Guest(end, ROOT) as guest,
        pytest.raises(LabError, match="ended before its command did"),
    ):
        guest.wait(BOOTED)


def test_a_guest_that_takes_too_long_is_ended():
    with Guest(["sleep", "1000"], ROOT) as guest:
        wait_until((guest.directory / "started").exists, "the guest's command", BOOTED)
        with pytest.raises(LabError, match="still waiting for the guest kernel"):
            guest.wait(0.1)
        handle = os.pidfd_open(guest.pid)
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)


def test_a_maker_that_is_killed_leaves_no_guest_behind():
    with subprocess.Popen(
        [sys.executable, "-c", MAKER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        directory, pid = maker.stdout.readline().split()
        handle = os.pidfd_open(int(pid))
        wait_until((Path(directory) / "started").exists, "the guest's command", BOOTED)
        maker.send_signal(signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0], "the guest kernel lives on"
    os.close(handle)
    wait_until(lambda: not Path(directory).exists(), "the directory to go")

"""Which SAs of the kernel count as those of a Libreswan daemon that was killed."""

import os
import subprocess
import time
from datetime import datetime

import pytest

from carnet.ipsec import libreswan
from carnet.ipsec import libreswan_leftovers as leftovers
from carnet.ipsec.libreswan_tools import Tools
from carnet.ipsec.programs import Done
from lab.waiting import wait_until

LISTED = (
    "src 192.0.2.1 dst 192.0.2.2\\\tproto esp spi 0x{spi:08x} reqid 16389 mode tunnel\\"
    "\tlifetime current:\\\t  add {added:%Y-%m-%d %H:%M:%S} use -\n"
)


@pytest.fixture
def kernel(monkeypatch):
    """Stands for `ip`: lists an SA of each given moment, and remembers which are removed."""

    class Kernel:
        listed, removed = "", ""

        def has(self, *moments):
            added = enumerate(map(datetime.fromtimestamp, moments), start=1)
            self.listed = "".join(LISTED.format(spi=n, added=when) for n, when in added)

        def __call__(self, *arguments, said=""):
            self.removed += said
            return Done(arguments, 0, self.listed)

    made = Kernel()
    monkeypatch.setattr(leftovers, "ip", made)
    return made


@pytest.fixture
def daemon():
    """A process, and the moments around its beginning, which /proc tells to 10 ms."""
    wait_until(lambda: 0.02 < time.time() % 1 < 0.2, "the beginning of a second")
    before = time.time()
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process.pid, before, time.time()
        process.kill()


def test_what_is_a_second_older_than_the_daemon_goes(kernel, daemon):
    pid, before, _ = daemon
    kernel.has(int(before) - 1)
    leftovers.sweep(pid, "")
    assert "spi 0x00000001" in kernel.removed


def test_what_is_not_older_than_the_daemon_or_is_known_to_it_stays(kernel, daemon):
    pid, before, after = daemon
    kernel.has(int(before) - 3, int(after))
    leftovers.sweep(pid, "esp.1@192.0.2.2")
    assert kernel.removed == ""


def test_this_very_process_is_older_than_what_it_makes_now(kernel):
    kernel.has(time.time())
    leftovers.sweep(os.getpid(), "")
    assert kernel.removed == ""


def test_the_end_of_any_tunnel_takes_them_away(kernel, daemon, monkeypatch, tmp_path):
    pid, before, _ = daemon
    kernel.has(int(before) - 1, int(before) - 2)
    monkeypatch.setattr(Tools, "whack", lambda *_: "esp.2@192.0.2.2")
    monkeypatch.setattr(libreswan, "listener", lambda _: pid)
    libreswan.Libreswan(tmp_path / "pluto.ctl").down("carnet-7")
    assert kernel.removed.count("delete") == 1
    assert "spi 0x00000001" in kernel.removed


def test_of_a_daemon_whose_beginning_is_not_known_nothing_goes(kernel):
    kernel.has(0)
    leftovers.sweep(0, "")
    assert kernel.removed == ""

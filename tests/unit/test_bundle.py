"""What ties AH and ESP together, in a kernel that answers as `ip` does."""

from subprocess import CompletedProcess

import pytest

from carnet.ipsec import bundle

BLOCKS = (
    "src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir in action block priority 17320 \n"
    "\tmark 0x40000000/0x40000000 \n"
)
HALF = "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xc0\n\toutput-mark 0x40000000/0x40000000\n"


class Kernel:
    """What it lists, by the command, and what it was told."""

    def __init__(self, **listed):
        self.listed = listed
        self.told: list[str] = []

    def ip(self, *arguments, said=""):
        if said:
            self.told += said.splitlines()
            return CompletedProcess(arguments, 0, "", "")
        words = [each for each in arguments if each in ("policy", "state")]
        listed = self.listed[words[0]] if words else "[]"
        return CompletedProcess(arguments, int(listed is None), listed or "", "")


@pytest.fixture
def kernel_with(monkeypatch):
    def make(**listed):
        kernel = Kernel(**listed)
        monkeypatch.setattr(bundle, "ip", kernel.ip)
        monkeypatch.setattr(bundle.shutil, "which", lambda _: "/usr/sbin/ip")
        return kernel

    return make


@pytest.mark.parametrize(
    ("policies", "states", "lifted"),
    [(BLOCKS, "", True), (BLOCKS, HALF, False), (BLOCKS, None, False), ("", "", False)],
    ids=["no half", "a half", "nobody tells", "no block"],
)
def test_the_block_stays_while_the_kernel_has_a_half(kernel_with, policies, states, lifted):
    kernel = kernel_with(policy=policies, state=states)
    bundle.unblock_halves()
    assert len(kernel.told) == (4 if lifted else 0)

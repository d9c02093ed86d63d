"""What the guest has, and the gate in its packet filter, whose nftables know nothing of IP."""

import subprocess

import pytest

from carnet.ipsec.kernel import kernel_has_esp
from lab.charon import Lane, choose_lane
from tests.guest.bridge import ROOT
from tests.lab.test_gate import *  # noqa: F403


def test_this_kernel_has_esp_of_its_own():
    assert kernel_has_esp()
    assert choose_lane() is Lane.KERNEL


def test_nftables_know_nothing_of_ip_in_this_kernel(nf_tables):
    """Else the gate and the block would be seen here as nftables have them."""
    for family in ("inet", "ip", "ip6", "netdev"):
        done = subprocess.run(
            ["unshare", "--net", "nft", "add", "table", family, "probe"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode
        assert "Operation not supported" in done.stderr


@pytest.fixture
def nf_tables():
    """The module that this kernel has, and that nothing else here is of use to."""
    modprobe = ("modprobe", "-d", "/run/modules")
    subprocess.run([*modprobe, "nf_tables"], check=True)
    yield
    subprocess.run([*modprobe, "-r", "nf_tables"], check=True)


def test_nothing_of_the_machine_can_be_written_to():
    with pytest.raises(OSError, match="Read-only file system"):
        (ROOT / "planted").touch()

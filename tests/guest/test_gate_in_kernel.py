"""What the guest has, and the gate in its packet filter, whose nftables know nothing of IP."""

import subprocess

import msgspec
import pytest

from carnet.ipsec import kernel
from carnet.ipsec.block.closed import Closed
from carnet.ipsec.block.iptables import Iptables
from carnet.ipsec.kernel import kernel_has_ah, kernel_has_esp
from lab.charon import Lane, choose_lane
from lab.waiting import wait_until
from tests.guest.bridge import ROOT
from tests.lab.test_gate import *  # noqa: F403

# iptables, which this kernel has, close nothing by themselves, and tell of no change.
del test_the_kernel_closes_it_when_the_time_is_over  # noqa: F821
del test_more_changes_than_the_kernel_keeps_are_heard_as_well  # noqa: F821

BLOCK = Closed(
    name="carnet-0123456789abcdef",
    networks=("10.20.0.0/16", "fd00:20::/64"),
    targets=("192.0.2.9", "2001:db8::9"),
    hosts=(("192.0.2.8", 8470),),
    userspace=False,
)


def test_this_kernel_has_ipsec_of_its_own():
    assert kernel_has_esp()
    assert kernel_has_ah()
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


@pytest.fixture
def _without_esp(monkeypatch):
    """Have the kernel do without its ESP; what uses it may take a moment to go."""
    taking_it_out = ["rmmod", "esp4"]
    wait_until(lambda: subprocess.run(taking_it_out, check=False).returncode == 0, "ESP to go")
    monkeypatch.setattr(kernel, "_found", set())
    yield
    subprocess.run(["modprobe", "-d", "/run/modules", "esp4"], check=True)


@pytest.mark.usefixtures("_without_esp")
def test_a_kernel_with_ah_alone_is_known_for_that():
    assert (kernel_has_esp(), kernel_has_ah()) == (False, True)


def filters():
    """Return all that the packet filters of both IP versions have in their table."""
    listing = ["sh", "-ec", "iptables-legacy -S; ip6tables-legacy -S"]
    return subprocess.run(listing, capture_output=True, text=True, check=True).stdout


def test_a_block_that_is_made_again_is_there_once_and_leaves_nothing():
    before, iptables = filters(), Iptables()
    iptables.close(BLOCK)
    made = filters()
    iptables.close(BLOCK)
    assert filters() == made != before
    assert iptables.names() == {BLOCK.name}
    for network in BLOCK.networks:  # of the other IP version nothing stays
        iptables.close(msgspec.structs.replace(BLOCK, networks=(network,)))
        left = filters()
        assert f"-d {network} -j DROP" in left
        assert left.count("-N ") == before.count("-N ") + 1
    for _ in range(2):
        iptables.lift(BLOCK.name)
        assert filters() == before


def test_nothing_of_the_machine_can_be_written_to():
    with pytest.raises(OSError, match="Read-only file system"):
        (ROOT / "planted").touch()

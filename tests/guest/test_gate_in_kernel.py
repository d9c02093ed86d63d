"""What the guest has, and the gate in its packet filter, whose nftables know nothing of IP."""

import pytest

from carnet.ipsec.kernel import kernel_has_esp
from lab.charon import Lane, choose_lane
from tests.guest.bridge import ROOT
from tests.lab.test_gate import *  # noqa: F403


def test_this_kernel_has_esp_of_its_own():
    assert kernel_has_esp()
    assert choose_lane() is Lane.KERNEL


def test_nothing_of_the_machine_can_be_written_to():
    with pytest.raises(OSError, match="Read-only file system"):
        (ROOT / "planted").touch()

"""What several files here share."""

import threading

import pytest

from carnet.ipsec import block
from helper_agent import side_by_side
from tests.unit.helper_world import Daemon

_JOIN_SECONDS = 30.0
"""Of a thread of the guard, which ends with its events: only a hang takes longer."""


@pytest.fixture
def daemon(monkeypatch):
    """Stands for what carnet-helper tells: the IPsec daemon and the packet filter.

    What looks after its tunnels ends before the next test replaces what it looks at.
    """
    made = Daemon()
    with monkeypatch.context() as filters:
        filters.setattr(block, "_here", block._PacketFilters((made,)))
        yield made
        for each in threading.enumerate():
            if each.name == side_by_side.THREAD:
                each.join(_JOIN_SECONDS)
                assert not each.is_alive(), "the guard does not end"

"""What several files here share."""

import pytest

from carnet.ipsec import block
from tests.unit.helper_world import Daemon


@pytest.fixture
def daemon(monkeypatch):
    """Stands for what carnet-helper tells: the IPsec daemon and the packet filter."""
    made = Daemon()
    monkeypatch.setattr(block, "_here", block._PacketFilters((made,)))
    return made

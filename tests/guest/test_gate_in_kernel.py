"""The gate again, in the packet filter of a kernel whose nftables know nothing of IP."""

from tests.lab.test_gate import *  # noqa: F403

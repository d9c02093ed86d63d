"""What Target's block closes, and where there is none; in a kernel: tests/lab/test_gate.py."""

import pytest

from carnet.errors import IPsecError
from target_agent.firewall.pool import chain, rules
from target_agent.pool_block import PoolBlock

POOLS = ("10.99.0.0/24", "fd99::/64")


class InMemory:
    """A packet filter that takes whatever it is told."""

    def __init__(self):
        self.closed = None

    def works(self, networks):
        return True

    def close(self, networks):
        self.closed = networks

    def lift(self):
        self.closed = None

    def seen(self):
        return str(self.closed or "")

    def changes(self):
        return None


def test_addresses_that_live_are_closed_too_and_those_of_the_pool_are_no_more_rules():
    kept = InMemory()
    PoolBlock(POOLS, [kept]).close(["10.99.0.7", "10.99.0.8", "fd99::1", "10.98.0.1", "10.98.0.1"])
    assert kept.closed == (*POOLS, "10.98.0.1/32")


def test_one_that_was_taken_away_is_made_anew_and_one_that_was_lifted_is_not():
    kept = InMemory()
    block = PoolBlock(POOLS, [kept])
    block.close()
    kept.lift()
    block.restore()
    assert kept.closed == POOLS
    block.lift()
    block.restore()
    assert kept.closed is None


def test_where_there_is_no_packet_filter_it_says_how_to_do_without():
    with pytest.raises(IPsecError, match="`block = false`"):
        PoolBlock(POOLS, []).close()


def test_nothing_but_ipsec_and_the_machine_itself_is_let_through():
    """No DHCP and no port of anybody's: what carries a tunnel is for other addresses."""
    accepted = [line.strip() for line in rules(POOLS).splitlines() if "accept" in line]
    assert accepted == [
        "rt ipsec exists accept",
        'meta oifkind "tun" oifname "ipsec*" accept',
        'oif "lo" accept',
        "type filter hook postrouting priority srcnat + 50; policy accept;",
    ]
    assert chain(POOLS[:1]) == [
        ":CARNET-POOL - [0:0]",
        "-A CARNET-POOL -m policy --dir out --pol ipsec -j RETURN",
        "-A CARNET-POOL -o ipsec+ -j RETURN",
        "-A CARNET-POOL -o lo -j RETURN",
        "-A CARNET-POOL -d 10.99.0.0/24 -j DROP",
    ]

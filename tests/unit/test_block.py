"""The block against packets in clear: when its packet filter is looked for."""

import fcntl
import os
import threading
from types import SimpleNamespace
from unittest.mock import MagicMock

import msgspec
import pytest

from carnet.errors import HelperAwayError, IPsecError
from carnet.ipsec import block
from carnet.ipsec.block import iptables, nft
from carnet.ipsec.helper.client import HelperFilter

NAME = "carnet-0123456789abcdef"
BLOCK = block.Closed(name=NAME, networks=(), targets=(), hosts=(), userspace=False)


class PacketFilter:
    """One that counts how often it is looked at."""

    name = "counted"

    looks = 0
    there = True

    def __init__(self):
        self.blocks = set()

    def works(self):
        self.looks += 1
        return self.there

    def close(self, closed):
        self.blocks.add(closed.name)

    def lift(self, name):
        self.blocks.discard(name)

    def names(self):
        return frozenset(self.blocks)


@pytest.fixture
def filters(monkeypatch):
    """Two that work; the first is the one to use."""
    made = PacketFilter(), PacketFilter()
    monkeypatch.setattr(block, "_here", block._PacketFilters(made))
    return made


def test_the_first_that_works_is_looked_for_once(filters):
    first, second = filters
    first.there = False
    block.close(BLOCK)
    assert block.names() == second.blocks == {NAME}
    block.lift(NAME)
    assert (first.looks, second.looks) == (1, 1)
    assert second.blocks == set()


def test_a_block_is_lifted_by_the_filter_that_made_it(filters):
    first, second = filters
    second.name, first.there = "another", False
    block.close(BLOCK)
    made_by = block.filter_name()
    first.there, block._here.working = True, None
    assert block.names() == frozenset()
    assert block.names([made_by, None]) == {NAME}
    second.there = False
    with pytest.raises(IPsecError, match="does not answer"):
        block.lift(NAME, made_by)
    second.there = True
    block.lift(NAME, made_by)
    assert second.blocks == set()


@pytest.mark.usefixtures("filters")
def test_a_helper_that_is_away_is_not_a_machine_without_blocks(tmp_path):
    block.use(HelperFilter(tmp_path / "nobody"))
    for ask in (lambda: block.lift(NAME), block.names, block.find_filter):
        with pytest.raises(HelperAwayError):
            ask()


def test_a_helper_that_does_not_tell_of_blocks_is_not_taken_for_one_that_has_none(tmp_path):
    asked = HelperFilter(tmp_path / "refusing")
    asked._link = SimpleNamespace(ask=MagicMock(side_effect=IPsecError("nft does not tell.")))
    with pytest.raises(IPsecError, match="does not tell"):
        asked.names()


def test_whether_a_block_can_be_had_is_looked_at_anew(filters):
    assert block.is_possible()
    for each in filters:
        each.there = False
    assert not block.is_possible()
    with pytest.raises(IPsecError, match="--no-block"):
        block.find_filter()
    assert block.names() == frozenset()


def test_what_is_looked_for_ahead_is_looked_for_once_and_meanwhile(filters, monkeypatch):
    first, second = filters
    lookers = []

    def works():
        lookers.append(threading.current_thread())
        return first.there

    monkeypatch.setattr(first, "works", works, raising=False)
    block.look_ahead()
    assert block.find_filter() is first
    assert len(lookers) == 1
    assert lookers[0] is not threading.current_thread()
    first.there = False
    assert block.find_filter() is second, "a later look is a look of its own"


def test_what_fails_as_it_is_looked_for_ahead_is_raised_where_it_is_needed(filters, monkeypatch):
    def works():
        raise IPsecError("no program can be started")

    monkeypatch.setattr(filters[0], "works", works, raising=False)
    block.look_ahead()
    with pytest.raises(IPsecError, match="no program"):
        block.find_filter()


def test_where_no_thread_can_be_had_the_filter_is_found_without(filters, monkeypatch):
    def none(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(block.ThreadPoolExecutor, "submit", none)
    block.look_ahead()
    assert block.find_filter() is filters[0]


@pytest.fixture
def untold(monkeypatch, tmp_path):
    """Packet filters whose programs fail, and where it stands what tables there are, by version."""
    tables = {version: tmp_path / f"names-{version}" for version in (4, 6)}
    monkeypatch.setattr(iptables, "_TABLES", tables)
    for each in (nft, iptables):
        monkeypatch.setattr(each, "answers", lambda *_: None)
    return tables


@pytest.mark.parametrize("version", [4, 6])
def test_a_filter_that_does_not_tell_is_not_taken_for_one_that_holds_nothing_back(untold, version):
    untold[version].write_text("mangle\nfilter\n")
    made = iptables.Iptables()
    asked = [ask for each in (nft.Nft(), made) for ask in (each.names, each.held_back)]
    for ask in (*asked, lambda: made.lift(NAME)):
        with pytest.raises(IPsecError, match="does not tell"):
            ask()
    network = {4: "10.20.0.0/16", 6: "fd20::/64"}[version]
    with pytest.raises(IPsecError, match="does not tell"):
        made.close(msgspec.structs.replace(BLOCK, networks=(network,)))


def test_who_holds_the_lock_of_iptables_is_not_waited_for_without_end(tmp_path, monkeypatch):
    held = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(held))
    monkeypatch.setenv("PATH", "/usr/sbin", prepend=os.pathsep)
    monkeypatch.setattr(iptables, "WAIT", ("--wait", "1"))
    monkeypatch.setattr(iptables, "may_have_rules", lambda _: True)
    made = iptables.Iptables()
    with held.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not made.works()
        with pytest.raises(IPsecError, match="does not tell"):
            made.names()
        with pytest.raises(IPsecError, match="does not take the rules"):
            iptables.tell(iptables._restoring("iptables-legacy"), "*filter\nCOMMIT\n")


def test_a_kernel_that_has_no_such_table_holds_nothing_back_by_it(untold):
    untold[4].write_text("mangle\n")
    assert iptables.Iptables().names() == frozenset()
    iptables.Iptables().lift(NAME)

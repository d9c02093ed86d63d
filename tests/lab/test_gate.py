"""The gate in a packet filter of a real kernel: what is closed, and to whom it opens."""

import asyncio
import shutil
import struct
import subprocess
import time
from contextlib import ExitStack, nullcontext, suppress
from functools import cache
from socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_AH,
    IPPROTO_UDP,
    SO_RCVBUF,
    SOCK_RAW,
    SOL_SOCKET,
    create_connection,
    socket,
)
from socketserver import BaseRequestHandler
from threading import Thread

import pytest

from carnet.errors import IPsecError
from lab.file_server import FileServer
from lab.network import ROUTED
from lab.waiting import wait_until
from lab.world import World
from target_agent import gate_watch
from target_agent.firewall import Guarded, iptables, nft
from target_agent.firewall.pool import IptablesPool, NftPool
from target_agent.gate import Gate
from target_agent.pool_block import PoolBlock

CLIENT, SERVER, TARGET = "192.168.77.2", "10.20.0.10", "198.51.100.2"
CLIENT_V6, SERVER_V6 = "fd77::2", "fd20::10"
WORK, WORK_V6 = "10.20.0.0/16", "fd20::/64"
GUARDED = Guarded(("eth0",), (WORK, WORK_V6), (80,))

STAY = """
exec 3<>"/dev/tcp/$1/80" || exit
echo first >&3; read -r said <&3; echo "heard $said"
read -r word
echo "$word" >&3; read -r said <&3; echo "heard $said"
"""


class Echo(BaseRequestHandler):
    def handle(self):
        with suppress(OSError):
            while said := self.request.recv(99):
                self.request.sendall(said)


class EchoServer(FileServer):
    def __init__(self, address, port):
        self.address_family = AF_INET6 if ":" in address else AF_INET
        super().__init__((address, port), Echo)


@pytest.fixture(scope="module")
def world():
    """With servers in threads of this process: programs start slowly in a guest kernel."""
    with World(ROUTED) as made, ExitStack() as stack:
        for machine, address, port in (
            (made.server, SERVER, 80),
            (made.server, SERVER_V6, 80),
            (made.target, TARGET, 80),
            (made.target, TARGET, 22),
            (made.client, CLIENT, 80),
        ):
            with machine.network():
                server = stack.enter_context(EchoServer(address, port))
            Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield made


@cache
def knows_ip() -> bool:
    """Whether nftables of this kernel know of IP."""
    argv = ["unshare", "--net", "nft", "add", "table", "inet", "probe"]
    return shutil.which("nft") is not None and not subprocess.run(argv, check=False).returncode


@pytest.fixture
def gate(world):
    """A gate on the machine Target, in whichever packet filter this kernel has."""

    with world.target.network():
        made = Gate(nft.Nft() if knows_ip() else iptables.Iptables(), GUARDED)
        made.shut()
        yield made


def until(seconds: float = 3600) -> float:
    return time.time() + seconds


def reaches(machine, address: str, port: int = 80) -> bool:
    with machine.network(), suppress(OSError), create_connection((address, port), 1) as server:
        server.sendall(b"hello")
        return server.recv(99) == b"hello"
    return False


def test_what_is_guarded_is_closed_and_all_else_is_open(world, gate):
    assert not reaches(world.client, SERVER)
    assert not reaches(world.client, SERVER_V6)
    assert not reaches(world.client, TARGET)
    assert reaches(world.client, TARGET, 22)
    assert reaches(world.server, CLIENT)


def test_it_opens_from_one_address_to_what_was_granted(world, gate):
    gate.open("carnet-1", CLIENT, (WORK,), until())
    assert reaches(world.client, SERVER)
    assert not reaches(world.client, SERVER_V6)
    assert not reaches(world.client, TARGET)
    assert not reaches(world.router, SERVER)
    gate.close("carnet-1")
    assert not reaches(world.client, SERVER)


def test_it_opens_for_both_ip_versions_and_for_target_itself(world, gate):
    gate.open("carnet-1", CLIENT_V6, (WORK, WORK_V6), until())
    gate.open("carnet-2", CLIENT, (f"{TARGET}/32",), until())
    assert reaches(world.client, SERVER_V6)
    assert reaches(world.client, TARGET)
    assert not reaches(world.client, SERVER)


def say_in_ah(machine, word: bytes) -> None:
    """Send UDP in an AH that no SA is of."""
    head = struct.pack(">BBHII", IPPROTO_UDP, 4, 0, 7, 1) + bytes(12)
    udp = struct.pack(">HHHH", 80, 80, 8 + len(word), 0) + word
    with machine.network(), socket(AF_INET6, SOCK_RAW, IPPROTO_AH) as saying:
        saying.sendto(head + udp, (SERVER_V6, 0))


def test_ah_that_nobody_has_verified_opens_nothing(world, gate):
    with world.server.network():
        hearing = socket(AF_INET6, SOCK_RAW, IPPROTO_AH)
    with hearing:
        hearing.settimeout(20)
        say_in_ah(world.client, b"forged")
        gate.open("carnet-1", CLIENT_V6, (WORK_V6,), until())
        # What comes after it has passed, so the one before it never will.
        say_in_ah(world.client, b"granted")
        assert hearing.recv(99).endswith(b"granted")


def test_sessions_from_one_address_do_not_close_each_other(world, gate):
    gate.open("carnet-1", CLIENT, (WORK,), until())
    gate.open("carnet-2", CLIENT, ("10.20.0.0/24", WORK), until())
    gate.close("carnet-1")
    gate.close("carnet-1")
    assert reaches(world.client, SERVER)
    gate.close("carnet-2")
    assert not reaches(world.client, SERVER)


def test_the_kernel_closes_it_when_the_time_is_over(world, gate):
    gate.open("carnet-1", CLIENT, (WORK,), until(1))
    wait_until(lambda: not reaches(world.client, SERVER), "the kernel to close it")
    gate.open("carnet-2", CLIENT_V6, (WORK_V6,), until(-1))
    assert not reaches(world.client, SERVER_V6)


FLUSHED = "nft flush ruleset"
FLUSHED_IPTABLES = """
for program in iptables-legacy ip6tables-legacy; do
    $program -F FORWARD; $program -F INPUT
done
"""


def test_one_that_somebody_took_away_is_made_anew(world, gate):
    gate.open("carnet-1", CLIENT, (WORK,), until())
    found_gone = []
    gate.count_gone = lambda: found_gone.append(1)
    gate.restore()
    assert not found_gone
    with gate.changes() or nullcontext() as heard:
        world.target.run(["sh", "-ec", FLUSHED if heard else FLUSHED_IPTABLES])
        if heard:
            heard.settimeout(20)
            assert heard.recv(1 << 16)
    gate.restore()
    assert found_gone == [1]
    assert reaches(world.client, SERVER)
    assert not reaches(world.router, SERVER)


CHANGES = """
flush set inet carnet_gate outside
delete element inet carnet_gate guarded4 { 10.20.0.0/16 }
flush set inet carnet_gate guarded6
flush set inet carnet_gate ports
flush set inet carnet_gate open4
delete element inet carnet_gate open6 { fd77::2 . fd20::/64 }
add element inet carnet_gate open4 { 198.51.100.1 . 10.20.0.0/16 timeout 1h }
add element inet carnet_gate open4 { 0.0.0.0/0 . 0.0.0.0/0 }
insert rule inet carnet_gate gate return
add table inet carnet_gate { flags dormant; }
"""
CHANGES_IPTABLES = """
iptables-legacy -I CARNET-GATE -j ACCEPT
iptables-legacy -D CARNET-GATE -s 192.168.77.2 -d 10.20.0.0/16 -j RETURN
"""
"""Others are in tests/target/test_iptables.py, since programs start slowly in a guest kernel."""


def test_whatever_somebody_changes_in_it_is_put_right(world, gate):
    gate.open("carnet-1", CLIENT, (WORK,), until())
    gate.open("carnet-2", CLIENT_V6, (WORK_V6,), until())
    found_changed = []
    gate.count_gone = lambda: found_changed.append(1)
    before = in_kernel(gate)
    assert before.openings == {(f"{CLIENT}/32", WORK), (f"{CLIENT_V6}/128", WORK_V6)}
    changes = (CHANGES if knows_ip() else CHANGES_IPTABLES).strip().splitlines()
    for count, change in enumerate(changes, 1):
        world.target.run(["nft", change] if knows_ip() else ["sh", "-ec", change])
        gate.restore()
        assert (in_kernel(gate), len(found_changed)) == (before, count), change


SAVED = "{ echo flush ruleset; nft list ruleset; } >saved"
SAVED_IPTABLES = "iptables-legacy-save >saved"


def test_rules_that_somebody_saved_revive_no_session_that_has_ended(world, gate):
    gate.open("carnet-1", CLIENT_V6, (WORK_V6,), until())
    gate.open("carnet-2", "198.51.100.1", (WORK,), until())
    world.target.run(["sh", "-ec", SAVED if knows_ip() else SAVED_IPTABLES])
    gate.close("carnet-2")
    gate.open("carnet-3", CLIENT, (WORK,), until())
    before = in_kernel(gate)
    world.target.run(["nft", "-f", "saved"] if knows_ip() else ["iptables-legacy-restore", "saved"])
    assert in_kernel(gate) != before
    gate.restore()
    assert in_kernel(gate) == before
    assert reaches(world.client, SERVER)


MANY = ", ".join(f"10.0.{high}.{low}" for high in range(10) for low in range(100))
OVERRUN = f"""
add table inet noise
add set inet noise many {{ type ipv4_addr; elements = {{ {MANY} }}; }}
flush ruleset
"""


def test_more_changes_than_the_kernel_keeps_are_heard_as_well(world, gate, monkeypatch):
    heard = gate.changes()
    heard.setsockopt(SOL_SOCKET, SO_RCVBUF, 0)
    looked = []

    def look():
        """Look, and change more than can be heard; to look again without delay is enough."""
        Gate.restore(gate)
        looked.append(in_kernel(gate))
        if len(looked) == 1:
            world.target.run(["nft", "-f", "-"], stdin=OVERRUN)
        else:
            raise IPsecError("It has been looked at again.")

    monkeypatch.setattr(gate_watch, "LOOK_SECONDS", 300)
    monkeypatch.setattr(gate, "changes", lambda: heard)
    monkeypatch.setattr(gate, "restore", look)
    with pytest.raises(IPsecError, match="looked at again"):
        asyncio.run(gate_watch.keep_gate(gate))
    assert looked[0] == looked[1]


def in_kernel(gate):
    return gate._firewall.seen()


def test_closing_cuts_what_goes_on(world, gate):
    gate.open("carnet-1", CLIENT, (WORK,), until())
    argv = ["timeout", "20", "bash", "-c", STAY, "stay", SERVER]
    process = world.client.start(argv, log="stay.log", stdin=subprocess.PIPE)
    process.wait_for_line("heard first")
    gate.close("carnet-1")
    process.stdin.write(b"second\n")
    process.stdin.flush()
    wait_until(lambda: is_unanswered(world.client), "the client to send again, in vain")
    assert "heard second" not in process.output()
    process.kill()


def is_unanswered(machine) -> bool:
    """Whether its kernel has sent something again on a connection to the server."""
    with machine.network():
        return b"retrans:" in subprocess.check_output(["ss", "-tin", "dst", SERVER])


def test_a_filter_that_refuses_leaves_it_as_it_was(world, gate, monkeypatch):
    gate.open("carnet-1", CLIENT, (WORK,), until())
    for module in (nft, iptables):
        monkeypatch.setattr(module, "tell", refuse)
    with pytest.raises(IPsecError, match="no more"):
        gate.close("carnet-1")
    with pytest.raises(IPsecError, match="no more"):
        gate.open("carnet-2", CLIENT_V6, (WORK_V6,), until())
    monkeypatch.undo()
    assert not reaches(world.client, SERVER_V6)


POOLS = ("192.168.77.0/24", "fd77::/64")
"""Whatever leads to the client."""
POOL_GONE = "nft delete table inet carnet_pool"
POOL_GONE_IPTABLES = "ip6tables-legacy -D FORWARD -j CARNET-POOL"


def test_what_is_for_a_pool_leaves_with_ipsec_or_not_at_all(world, gate):
    """Forwarded or Target's own; what is not for it does."""
    with world.target.network():
        before = in_packet_filter()
        block = PoolBlock(POOLS[:1], [NftPool() if knows_ip() else IptablesPool()])
        assert reaches(world.server, CLIENT)
        block.close(["fd77::2"])
        made = in_packet_filter()
        block.close(["fd77::2"])
        assert in_packet_filter() == made
        assert not reaches(world.server, CLIENT)
        assert not reaches(world.target, CLIENT)
        assert not reaches(world.server, CLIENT_V6)
        assert reaches(world.target, SERVER)
        world.target.run(["sh", "-c", POOL_GONE if knows_ip() else POOL_GONE_IPTABLES])
        assert in_packet_filter() != made
        block.restore()
        assert in_packet_filter() == made
        for _ in range(2):
            block.lift()
            assert in_packet_filter() == before
        assert reaches(world.server, CLIENT)


def in_packet_filter():
    """Return all rules; what they have counted apart."""
    listing = "nft -s list ruleset" if knows_ip() else "iptables-legacy -S; ip6tables-legacy -S"
    return subprocess.run(["sh", "-c", listing], stdout=subprocess.PIPE, check=True).stdout


def refuse(*_) -> None:
    raise IPsecError("no more")

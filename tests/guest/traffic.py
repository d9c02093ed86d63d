"""A file that is fetched, and what passed the router meanwhile."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET, create_connection

from lab.capture import Capture
from lab.machine import Machine
from lab.packets import FRAGMENTATION_SUPPORTED, Packet, read_packets
from lab.serving import served
from tests.lab.offices import FILE


@dataclass
class Watched:
    """What passed the router; `readable` is whether the file was to be read in it."""

    packets: list[Packet] = field(default_factory=list)
    readable: bool = False

    def kinds(self, one: str, other: str) -> set[str]:
        """What passed between two addresses, beside IKE."""
        return {p.kind for p in self.packets if p.is_between(one, other)} - {"IKE"}

    def dividing(self) -> set[str]:
        """Whose IKE has said that it divides messages which are too long (RFC 7383)."""
        ike = (p for p in self.packets if p.layers == ("IKE",))
        return {p.source for p in ike if FRAGMENTATION_SUPPORTED in p.payload}


@contextmanager
def watched(capture: Capture) -> Iterator[Watched]:
    """Yield what has, afterwards, the packets that were captured meanwhile."""
    found = Watched()
    start = capture.flush()
    yield found
    end = capture.flush()
    records = capture.path.read_bytes()[start:end]
    found.packets += read_packets(records)
    found.readable = FILE in records


def fetch(machine: Machine, address: str, seconds: float = 4) -> bool:
    """Whether the file can be had from there; nothing of it is sent again later."""
    with machine.network(), suppress(OSError), create_connection((address, 80), seconds) as server:
        # Ended at once: a FIN that is sent again after its tunnel would be refused by ICMP.
        server.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        server.sendall(b"GET /plan.txt HTTP/1.0\r\n\r\n")
        with server.makefile("rb") as answer:
            return FILE in answer.read()
    return False


@contextmanager
def serving(*machines: Machine) -> Iterator[None]:
    """Have the file fetched there, in both IP versions."""
    with ExitStack() as stack:
        for machine in machines:
            (machine.directory / "plan.txt").write_bytes(FILE)
            stack.enter_context(served(machine, "::"))
        yield

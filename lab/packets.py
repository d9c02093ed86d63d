"""What is in the packets of a capture: from the outer IP header inwards, by protocol.

For captures on all interfaces (tcpdump -i any, LINKTYPE_LINUX_SLL2).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from lab.errors import LabError

FRAGMENTATION_SUPPORTED = bytes.fromhex("0008 0000 402e")
"""A notify payload of IKE_SA_INIT, from its length on: no SPI, IKEV2_FRAGMENTATION_SUPPORTED
(RFC 7296 section 3.10, RFC 7383 section 2.3)."""

_RECORD = struct.Struct("<IIII")
_SLL2 = 20
_ETHERTYPES = {0x0800: 4, 0x86DD: 6}
_IPV4, _IPV6 = 4, 6
_NAMES = {1: "ICMP", 4: "IPv4", 6: "TCP", 17: "UDP", 41: "IPv6", 50: "ESP", 51: "AH", 58: "ICMPv6"}
_IKE_PORTS = {500, 4500}
_BROKEN = "This piece of a capture does not begin or end with a packet."


@dataclass(frozen=True)
class Packet:
    """One packet as it passed; `layers` are what follows the outer IP header."""

    source: str
    destination: str
    layers: tuple[str, ...]
    payload: bytes = field(default=b"", repr=False)
    """What follows the outer IP header."""

    @property
    def kind(self) -> str:
        """The layers as a person writes them, such as "AH ESP"."""
        return " ".join(self.layers)

    def is_between(self, one: str, other: str) -> bool:
        """Whether it went from one address to the other, or back."""
        return {self.source, self.destination} == {one, other}


def read_packets(records: bytes) -> Iterator[Packet]:
    """Yield the IP packets of a piece of a capture file, from one record's begin to another's.

    Raises LabError if the piece is none: what it says would be nothing, or wrong.
    """
    place = 0
    while place < len(records):
        begin = place + _RECORD.size
        if begin > len(records):
            raise LabError(_BROKEN)
        _, _, length, _ = _RECORD.unpack_from(records, place)
        place = begin + length
        if place > len(records):
            raise LabError(_BROKEN)
        frame = records[begin:place]
        if len(frame) > _SLL2 and int.from_bytes(frame[:2], "big") in _ETHERTYPES:
            yield _packet(frame[_SLL2:])


def _packet(octets: bytes) -> Packet:
    source, destination, protocol, payload = _ip(octets)
    return Packet(source, destination, tuple(_layers(protocol, payload)), payload)


def _ip(octets: bytes) -> tuple[str, str, int, bytes]:
    if octets[0] >> 4 == _IPV4:
        ends, header = (octets[12:16], octets[16:20]), 4 * (octets[0] & 15)
        protocol = octets[9]
    else:
        ends, header, protocol = (octets[8:24], octets[24:40]), 40, octets[6]
    source, destination = (str(ip_address(end)) for end in ends)
    return source, destination, protocol, octets[header:]


def _layers(protocol: int, payload: bytes) -> Iterator[str]:
    """Yield protocols as far as they are in clear: AH shows what it covers, ESP does not."""
    name = _NAMES.get(protocol, str(protocol))
    if name == "AH":
        yield name
        yield from _layers(payload[0], payload[4 * (payload[1] + 2) :])
    elif name in ("IPv4", "IPv6"):
        yield name
        _, _, inner, rest = _ip(payload)
        yield from _layers(inner, rest)
    elif name == "UDP" and _IKE_PORTS & set(struct.unpack_from(">HH", payload)):
        yield "IKE" if _is_ike(payload) else "ESP-in-UDP"
    else:
        yield name


def _is_ike(udp: bytes) -> bool:
    """Tell IKE from ESP on the port that they share (RFC 3948 section 2)."""
    ports = set(struct.unpack_from(">HH", udp))
    return 4500 not in ports or udp[8:12] in (bytes(4), b"\xff")  # noqa: PLR2004

"""Packets that have AH and no ESP, by the very SA that is to be around ESP."""

import hmac
import re
import struct
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, IPPROTO_RAW, SOCK_RAW, socket

_SA = re.compile(
    r"proto ah spi (?P<spi>0x[0-9a-f]+).*?auth-trunc hmac\(sha256\) (?P<key>0x[0-9a-f]+) 128"
    r".*?oseq (?P<last>0x[0-9a-f]+)",
    re.DOTALL,
)
_SEQ = re.compile(r"anti-replay context: seq (0x[0-9a-f]+)")
_AHEAD = 10
"""By so many numbers, which fits into the receiver's window: the next ones are not taken."""
_ICV = 16
"""Octets of HMAC-SHA-256-128 (RFC 4868 section 2.6)."""
IPV4, UDP = 4, 17
"""What AH is around."""
_AH = 51
_V6 = 6


@dataclass(frozen=True)
class OutgoingAh:
    """The SA that protects what a machine sends."""

    spi: int
    key: bytes
    last: int
    """The number of the last packet."""


def outgoing_ah(listed: str) -> OutgoingAh:
    """Read it from what `ip xfrm state` lists of it alone."""
    found = _SA.search(listed)
    assert found, listed
    return OutgoingAh(
        int(found["spi"], 16), bytes.fromhex(found["key"][2:]), int(found["last"], 16)
    )


def datagram(source: str, destination: str, port: int, word: bytes) -> bytes:
    """Return an IPv4 packet with a UDP datagram."""
    inside = udp(source, destination, port, word)
    return _ip(source, destination, UDP, len(inside), ttl=64) + inside


def udp(source: str, destination: str, port: int, word: bytes) -> bytes:
    """Return a UDP datagram, with the checksum that IPv6 insists on."""
    length = 8 + len(word)
    ends = ip_address(source).packed + ip_address(destination).packed
    head = struct.pack(">HHH", port, port, length)
    covered = ends + struct.pack(">HH", UDP, length) + head + word
    return head + struct.pack(">H", _checksum(covered)) + word


def newest_received(listed: str) -> int:
    """Return the highest number that an SA has verified, by the same list at the receiver."""
    found = _SEQ.search(listed)
    assert found, listed
    return int(found[1], 16)


def send_with_ah_alone(
    sa: OutgoingAh, source: str, destination: str, inner: bytes, what: int = IPV4
) -> int:
    """Send something with AH around it (RFC 4302 section 3.3); return the packet's number."""
    number = sa.last + _AHEAD
    # In IPv6 a header's length is a multiple of 8 octets.
    padding = bytes(4 if ip_address(source).version == _V6 else 0)
    fields = (12 + _ICV + len(padding)) // 4 - 2
    head = struct.pack(">BBHII", what, fields, 0, sa.spi, number)
    length = len(head) + _ICV + len(padding) + len(inner)
    # What changes on the way counts as zero: the time to live is one of these.
    covered = _ip(source, destination, _AH, length) + head + bytes(_ICV) + padding + inner
    icv = hmac.digest(sa.key, covered, sha256)[:_ICV]
    packet = _ip(source, destination, _AH, length, ttl=64) + head + icv + padding + inner
    family = AF_INET6 if ip_address(source).version == _V6 else AF_INET
    with socket(family, SOCK_RAW, IPPROTO_RAW) as sending:
        sending.sendto(packet, (destination, 0))
    return number


def _ip(source: str, destination: str, protocol: int, length: int, ttl: int = 0) -> bytes:
    """Return an IP header; in IPv4 one with a time to live has its checksum too."""
    ends = ip_address(source).packed + ip_address(destination).packed
    if ip_address(source).version == _V6:
        return struct.pack(">IHBB", _V6 << 28, length, protocol, ttl) + ends
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 1, 0, ttl, protocol, 0) + ends
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] if ttl else head


def _checksum(octets: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return ~total & 0xFFFF

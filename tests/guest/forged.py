"""A packet that has AH and no ESP, by the very SA that is to be around ESP."""

import hmac
import re
import struct
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from socket import IPPROTO_RAW, SOCK_RAW, socket

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
_IPV4, _UDP, _AH = 4, 17, 51


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
    """Return an IPv4 packet with a UDP datagram, which has no checksum."""
    udp = struct.pack(">HHHH", port, port, 8 + len(word), 0) + word
    return _ip(source, destination, _UDP, len(udp), ttl=64) + udp


def newest_received(listed: str) -> int:
    """Return the highest number that an SA has verified, by the same list at the receiver."""
    found = _SEQ.search(listed)
    assert found, listed
    return int(found[1], 16)


def send_with_ah_alone(sa: OutgoingAh, source: str, destination: str, inner: bytes) -> int:
    """Send a whole IPv4 packet with AH around it (RFC 4302 section 3.3); return its number."""
    number = sa.last + _AHEAD
    head = struct.pack(">BBHII", _IPV4, (12 + _ICV) // 4 - 2, 0, sa.spi, number)
    length = len(head) + _ICV + len(inner)
    # What changes on the way counts as zero: the time to live is one of these.
    covered = _ip(source, destination, _AH, length) + head + bytes(_ICV) + inner
    icv = hmac.digest(sa.key, covered, sha256)[:_ICV]
    packet = _ip(source, destination, _AH, length, ttl=64) + head + icv + inner
    with socket(type=SOCK_RAW, proto=IPPROTO_RAW) as sending:
        sending.sendto(packet, (destination, 0))
    return number


def _ip(source: str, destination: str, protocol: int, length: int, ttl: int = 0) -> bytes:
    """Return an IPv4 header; with a time to live it has its checksum too."""
    ends = ip_address(source).packed + ip_address(destination).packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 1, 0, ttl, protocol, 0) + ends
    if not ttl:
        return head
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:]

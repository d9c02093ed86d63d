"""What an eavesdropper reads back from a capture: the HTTP exchanges of one address."""

import logging
from dataclasses import dataclass
from pathlib import Path

_PATH = b"/v1/requests"


@dataclass(frozen=True)
class Overheard:
    """One sealed request as it passed, and the sealed answer to it."""

    request: bytes
    answer: bytes


def overheard(capture: Path, client: str, host: str, port: int) -> list[Overheard]:
    """Return every sealed request from client to host's port that was answered with bytes.

    What an agent asks beside it, such as why an earlier tunnel ended, is none.
    """
    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.layers.http import HTTP, HTTPRequest, HTTPResponse  # noqa: PLC0415  slow to import
    from scapy.layers.inet import IP, TCP  # noqa: PLC0415
    from scapy.packet import Raw, bind_layers  # noqa: PLC0415
    from scapy.sendrecv import sniff  # noqa: PLC0415
    from scapy.sessions import TCPSession  # noqa: PLC0415

    bind_layers(TCP, HTTP, dport=port)
    bind_layers(TCP, HTTP, sport=port)
    exchanges: list[Overheard] = []
    requests: dict[int, bytes] = {}
    for packet in sniff(offline=str(capture), session=TCPSession):
        if IP not in packet or {packet[IP].src, packet[IP].dst} != {client, host}:
            continue
        body = bytes(packet[Raw].load) if Raw in packet else b""
        if HTTPRequest in packet and packet[HTTPRequest].Path == _PATH:
            requests[packet[TCP].sport] = body
        elif HTTPResponse in packet and body and packet[TCP].dport in requests:
            exchanges.append(Overheard(requests.pop(packet[TCP].dport), body))
    return exchanges

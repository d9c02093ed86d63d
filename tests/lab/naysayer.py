"""Somebody on the way who says no in Target's name, as `python -m tests.lab.naysayer`.

Every request for IKE_SA_INIT that comes to this machine, whether its daemon sees it or not, is
answered by NO_PROPOSAL_CHOSEN (RFC 7296 section 3.10.1), which nobody has authenticated.
"""

import socket
import struct
import sys

IPV4, UDP, IKE_PORT = 0x0800, 17, 500
IKE_SA_INIT, NOTIFY, NO_PROPOSAL_CHOSEN = 34, 41, 14
RESPONSE, VERSION = 0x20, 0x20


def no_to(request):
    notify = struct.pack("!BBHBBH", 0, 0, 8, 0, 0, NO_PROPOSAL_CHOSEN)
    head = struct.pack("!BBBBII", NOTIFY, VERSION, IKE_SA_INIT, RESPONSE, 0, 28 + len(notify))
    return request[:8] + bytes(7) + b"\1" + head + notify


def main():
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(IPV4))
    said = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    while True:
        packet, (_, _, kind, *_) = heard.recvfrom(65535)
        inside = packet[(packet[0] & 15) * 4 :]
        ports = struct.unpack("!HH", inside[:4])
        mine = kind == socket.PACKET_HOST and packet[9] == UDP and ports == (IKE_PORT, IKE_PORT)
        if not mine or inside[8 + 18] != IKE_SA_INIT:
            continue
        answer = no_to(inside[8:])
        head = struct.pack("!HHHH", IKE_PORT, IKE_PORT, 8 + len(answer), 0)
        said.sendto(head + answer, (socket.inet_ntoa(packet[12:16]), 0))
        sys.stdout.write("said no\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""A name server that has one address for every name: `python name_server.py ADDRESS ANSWER`."""

import socket
import sys

_HEAD, _TYPE_AND_CLASS = 12, 4
_ANSWERED = bytes.fromhex("8180")
_ONE_OF_EACH = bytes.fromhex("0001000100000000")
_RECORD = bytes.fromhex("c00c00010001000000010004")
"""Of the name asked for, type A, class IN, for one second, four octets (RFC 1035)."""


def answer(query: bytes, address: str) -> bytes:
    """Return the answer to a query."""
    end = query.index(b"\0", _HEAD) + 1 + _TYPE_AND_CLASS
    question = query[_HEAD:end]
    return query[:2] + _ANSWERED + _ONE_OF_EACH + question + _RECORD + socket.inet_aton(address)


def serve(here: str, address: str) -> None:
    """Serve until killed; says `listening` when queries reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((here, 53))
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            query, who = server.recvfrom(512)
            server.sendto(answer(query, address), who)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])

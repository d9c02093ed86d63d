"""What the parts of test_two_halves share: words that are said, and who hears them."""

import socket

from carnet.objectives import Objective
from lab.machine import Machine
from lab.waiting import TIME_LIMIT
from tests.guest.gateways import inside

BOTH = Objective.AH_ESP
PORT = 7000


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Listener:
    """What reaches an address of a machine, word by word."""

    def __init__(self, machine: Machine, address: str) -> None:
        with machine.network():
            self._socket = socket.socket(_family(address), socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))
        self._socket.settimeout(TIME_LIMIT)
        self._heard: list[str] = []

    def wait_for(self, word: str) -> None:
        """Return when it has come; raise TimeoutError if nothing comes."""
        while word not in self._heard:
            self._heard.append(self._socket.recv(99).decode())

    def has(self, part: str) -> bool:
        """Whether anything with this in it came before the last word that was waited for."""
        return any(part in word for word in self._heard)

    def close(self) -> None:
        self._socket.close()


def say(client, word: str, address: str) -> None:
    with inside(client), socket.socket(_family(address), socket.SOCK_DGRAM) as saying:
        saying.sendto(word.encode(), (address, PORT))

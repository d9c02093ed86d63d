"""A fake card that a test holds in its hand: `python -m lab.card_in_hand PORT NAME [RETIRED]`.

Reads one command a line from standard input and answers each with one line of JSON:
insert, remove, serial HEX (it is another card from now on), tries, renew (pulled out,
with the first PIN, PUK and all tries again), log (the commands seen since the last
log), leave COUNT (once it is in: pulled out after so many commands, at the next one),
leave-at INS (pulled out at the next command with that instruction, in hexadecimal),
leave-when-wrong (pulled out as soon as it has said that a PIN or PUK is wrong;
with `unsaid` behind it as soon as it knows that).
Inserting connects to the socket of vpcd, the virtual reader; removing closes it.
"""

import contextlib
import json
import socket
import sys
import threading
from typing import Any, BinaryIO

from lab.fake_piv import ATR, FakePIV

_OFF, _ON, _RESET, _SEND_ATR = 0, 1, 2, 4
_HEADER = 2
_POWER = frozenset({_OFF, _ON, _RESET})


class Slot:
    """A card on its way into a reader and out of it."""

    def __init__(self, card: FakePIV, port: int) -> None:
        self._card = card
        self._port = port
        self._line: socket.socket | None = None
        self._answering: threading.Thread | None = None
        self.leaves_after: int | None = None
        """How many more commands it answers before it is pulled out."""
        self.leaves_at: int | None = None
        """At which instruction it is pulled out."""
        self.leaves_when_wrong = False
        """Whether it is pulled out once it has said that a PIN or PUK is wrong."""
        self.leaves_unsaid = False
        """Whether it is pulled out before it says so."""

    def insert(self) -> None:
        """Put the card in; OSError where no reader listens."""
        self.remove()
        self._line = socket.create_connection(("127.0.0.1", self._port))
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answering = threading.Thread(target=self._answer, args=(self._line,), daemon=True)
        self._answering.start()

    def remove(self) -> None:
        """Pull the card out; one that is not in is no error."""
        if self._line is not None and self._answering is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)
            self._answering.join()
            self._line.close()
        self._line = self._answering = None
        self._card.reset()

    def _answer(self, line: socket.socket) -> None:
        """Answer the reader until the line is cut."""
        with line.makefile("rb") as received, contextlib.suppress(OSError):
            while header := _read(line, received, _HEADER):
                message = _read(line, received, int.from_bytes(header, "big"))
                tries = self._card.tries()
                answer = self._reply(message)
                wrong = self._card.tries() < tries
                if len(message) > 1 and self._leaves(message[1], wrong=wrong):
                    line.shutdown(socket.SHUT_RDWR)
                    return
                if answer is not None:
                    line.sendall(len(answer).to_bytes(_HEADER, "big") + answer)
                if self.leaves_when_wrong and wrong:
                    self.leaves_when_wrong = False
                    line.shutdown(socket.SHUT_RDWR)
                    return

    def _leaves(self, instruction: int, *, wrong: bool) -> bool:
        """Whether it is pulled out instead of answering this command; once."""
        leaves = instruction == self.leaves_at or (wrong and self.leaves_unsaid)
        if self.leaves_after is not None:
            self.leaves_after -= 1
            leaves = leaves or self.leaves_after < 0
        if leaves:
            self.leaves_after = self.leaves_at = None
            self.leaves_unsaid = False
        return leaves

    def _reply(self, message: bytes) -> bytes | None:
        if len(message) > 1:
            return self._card.transmit(message)
        if message[0] in _POWER:
            self._card.reset()
            return None
        return ATR if message[0] == _SEND_ATR else None


def _read(line: socket.socket, received: BinaryIO, size: int) -> bytes:
    """Return so many bytes, and have what comes acknowledged at once.

    vpcd sends a command's length by itself, and the rest once that was acknowledged, which
    the kernel would put off for 40 ms each time.
    """
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    return received.read(size)


def obey(line: str, card: FakePIV, slot: Slot) -> Any:
    """Carry out one command; return what to answer."""
    command, *rest = line.split()
    match command, rest:
        case "insert", []:
            slot.insert()
        case "remove", []:
            slot.remove()
        case "serial", [text]:
            card.guid = bytes.fromhex(text)
        case "leave", [count]:
            slot.leaves_after = int(count)
        case "leave-at", [instruction]:
            slot.leaves_at = int(instruction, 16)
        case "leave-when-wrong", unsaid:
            slot.leaves_when_wrong, slot.leaves_unsaid = not unsaid, bool(unsaid)
        case "renew", []:
            slot.remove()
            card.renew()
        case "tries", []:
            return card.pin.tries
        case "log", []:
            seen, card.log = card.log, []
            return seen
        case _:
            raise ValueError(f"unknown command {command}")
    return None


def main(port: int, name: str, retired: int = 0) -> None:
    """Obey until standard input ends; `name` is the card's label."""
    card = FakePIV(name, retired=retired)
    slot = Slot(card, port)
    for line in sys.stdin:
        try:
            answer = {"done": obey(line, card, slot)}
        except (OSError, ValueError) as error:
            answer = {"failed": str(error)}
        print(json.dumps(answer), flush=True)
    slot.remove()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))

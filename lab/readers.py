"""Smart-card readers of a machine: a real pcscd, vpcd's virtual readers, fake cards.

pcscd needs no init system, only a directory for its socket; the machine's own /run has
it, so several machines have readers side by side and nothing is left of them.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from lab.daemon import Daemon
from lab.errors import LabError
from lab.machine import Machine

READERS = ("Virtual PCD 00 00", "Virtual PCD 00 01")
"""What PC/SC calls the two readers; card 0 goes into the first, card 1 into the second."""
OPENSC = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"

_VPCD = Path("/etc/reader.conf.d/vpcd")
_SOCKET = "/run/pcscd/pcscd.comm"
_FIRST_PORT = 35963


class Card:
    """A fake PIV card in the hand of the test, for one of the readers."""

    def __init__(self, machine: Machine, number: int, name: str, retired: int = 0) -> None:
        self.name = name
        port = str(_FIRST_PORT + number)
        self._process = machine.start(
            ["python", "-m", "lab.card_in_hand", port, name, str(retired)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def insert(self) -> None:
        """Put the card into its reader."""
        self._say("insert")

    def remove(self) -> None:
        """Pull the card out."""
        self._say("remove")

    def become(self, guid: str) -> None:
        """Be another card from now on: one with this GUID, 16 bytes in hexadecimal."""
        self._say(f"serial {guid}")

    def leave_after(self, count: int) -> None:
        """Be pulled out after so many commands, at the next one."""
        self._say(f"leave {count}")

    def leave_at(self, instruction: int) -> None:
        """Be pulled out at the next command with that instruction, which is the second byte."""
        self._say(f"leave-at {instruction:x}")

    def leave_when_wrong(self) -> None:
        """Be pulled out as soon as a PIN or PUK was wrong, and the card has said so."""
        self._say("leave-when-wrong")

    def leave_unsaid(self) -> None:
        """Be pulled out as soon as a PIN or PUK was wrong, before the card has said so."""
        self._say("leave-when-wrong unsaid")

    def renew(self) -> None:
        """Be out of the reader, with the first PIN and PUK and all tries of both."""
        self._say("renew")

    def tries(self) -> int:
        """Return how often the PIN may still be wrong."""
        return int(self._say("tries"))

    def seen(self) -> list[str]:
        """Return the first four bytes of each command since the last time."""
        return list(self._say("log"))

    def _say(self, command: str) -> Any:
        line, answer = self._process.stdin, self._process.stdout
        if line is None or answer is None:
            raise LabError(f"The card {self.name} hears nothing.")
        line.write(command.encode() + b"\n")
        line.flush()
        told = json.loads(answer.readline())
        if "failed" in told:
            raise LabError(f"{command} of card {self.name}: {told['failed']}")
        return told["done"]


class CardReaders(Daemon):
    """pcscd of one machine: start(), then stop() or kill(), and start() again."""

    name = "pcscd"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._configuration = machine.directory / "reader.conf.d"
        self._configuration.mkdir(mode=0o700)
        machine.path(_SOCKET).parent.mkdir()

    @property
    def socket(self) -> Path:
        """The socket of pcscd, as reached from outside the machine."""
        return self.machine.path(_SOCKET)

    def start(self, *, readers: bool = True) -> None:
        """Start pcscd and return when it answers; with its two readers, or with none."""
        file = self._configuration / "vpcd"
        file.write_text(_VPCD.read_text() if readers else "")
        # One that was killed leaves these, and they are not its successor's.
        for stale in self.socket.parent.iterdir():
            stale.unlink()
        self._process = self.machine.start(
            ["/usr/sbin/pcscd", "--foreground", "--config", str(self._configuration)],
            log="pcscd.log",
        )
        self._process.wait_for(self.socket.exists, "the socket")
        if readers:
            for number in range(len(READERS)):
                self.machine.wait_for_port(_FIRST_PORT + number)


def loopback(machine: Machine) -> None:
    """Give a machine without a network the addresses that cards and readers meet at."""
    machine.run(["ip", "link", "set", "lo", "up"])

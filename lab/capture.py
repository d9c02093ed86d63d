"""A packet capture on a machine, over a whole run, and what it shows when read back."""

import secrets
import signal
import socket
import subprocess
from types import TracebackType
from typing import Self

from lab.errors import LabError
from lab.machine import Machine
from lab.waiting import wait_until

NON_ESP_MARKER = "udp[8:4] = 0"
"""Four octets of zero after the UDP header: IKE and not ESP (RFC 3948 section 2.2)."""

KINDS = {
    "IKE on UDP 500": "udp port 500",
    "IKE on UDP 4500": f"udp port 4500 and udp[4:2] >= 12 and {NON_ESP_MARKER}",
    "ESP in UDP 4500": f"udp port 4500 and udp[4:2] >= 12 and not {NON_ESP_MARKER}",
    "NAT keepalives": "udp port 4500 and udp[4:2] = 9 and udp[8] = 0xff",
    "ESP": "ip proto 50",
}
"""What may pass between Client and Target, as tcpdump's filters (RFC 3948 section 2)."""

_TCPDUMP = (
    *("tcpdump", "-i", "any", "-n", "-Z", "root"),
    *("-U", "--immediate-mode", "-B", "65536", "-s", "8192"),
)
"""Every packet is written as it comes. The buffer (in KiB) is divided into places of the
snapshot length, so a short one makes room for many packets, and none is dropped."""

_NO_IDS = (
    "tcpdump does not run in a user namespace of one user: install uidmap and have a range"
    " of ids in /etc/subuid and /etc/subgid, or run this as root."
)

_DISCARD_PORT = 9

OTHER = "other"
"""Whatever is none of the kinds."""


class Capture:
    """tcpdump on all interfaces of a machine, from the start of the `with` to its end.

    That it is listening, and at the end that it has written all it saw, is known by a
    packet of one's own that has come to be in the file.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.path = machine.directory / "capture.pcap"
        self.path.unlink(missing_ok=True)
        self._tcpdump = machine.start(
            [*_TCPDUMP, "-w", str(self.path)],
            log="tcpdump.log",
        )

    def __enter__(self) -> Self:
        try:
            self._tcpdump.wait_for_line("listening on")
            self._tcpdump.wait_for(self.path.exists, "its file")
            self.flush()
        except BaseException:
            self._tcpdump.kill()
            if "Couldn't change to" in self._tcpdump.output():
                raise LabError(_NO_IDS) from None
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()
        self._tcpdump.signal(signal.SIGINT)
        self._tcpdump.wait()
        if kind is None and "\n0 packets dropped by kernel" not in self._tcpdump.output():
            raise LabError(f"The capture is not complete: {self._tcpdump.output()}")

    def flush(self) -> int:
        """Return when everything that passed before this call is in the file.

        Returns where in the file it ends: after it there may be more, the last packet of
        which is half written.
        """
        mark = secrets.token_hex(16).encode()
        written = self.path.stat().st_size
        with self._machine.network(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(mark, ("127.0.0.1", _DISCARD_PORT))
        wait_until(lambda: mark in self._tail(written), "the capture's own mark")
        # It is all that its packet carries, and so the end of it.
        return written + self._tail(written).index(mark) + len(mark)

    def _tail(self, start: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read()

    def between(self, one: str, other: str) -> dict[str, int]:
        """Count the packets between two addresses, by kind; `other` are all the rest."""
        pair, seen = f"host {one} and host {other}", self._whole_packets()
        counts = {kind: _count(seen, f"{pair} and {which}") for kind, which in KINDS.items()}
        counts[OTHER] = _count(seen, pair) - sum(counts.values())
        return counts

    def count(self, expression: str = "") -> int:
        """Count the packets that one of tcpdump's filter expressions selects."""
        return _count(self._whole_packets(), expression)

    def _whole_packets(self) -> bytes:
        """Return the file, without what is half written while the capture goes on."""
        end = self.flush() if self._tcpdump.running else None
        return self.path.read_bytes()[:end]


def _count(capture: bytes, expression: str) -> int:
    done = subprocess.run(
        ["tcpdump", "-n", "-Z", "root", "--count", "-r", "-", expression],
        input=capture,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise LabError(f"tcpdump cannot read the capture back: {said}")
    return int(done.stdout.split()[0])

"""Libreswan's daemon, one a machine, with all that is its own in the machine's directory.

On a machine of the lab it takes the place of charon: both want UDP 500 and 4500.
"""

import socket
from pathlib import Path

from carnet.ipsec.libreswan_tools import DEFAULT_SOCKET, DIRECTORY, LIBEXEC
from lab.daemon import Daemon

SOCKET = str(DEFAULT_SOCKET)
"""The daemon's socket, as the machine itself sees it."""

_CONFIGURATION = """config setup
    uniqueids=no
    ikev1-policy=accept
    dnssec-enable=no
    listen-tcp=no
"""


class Pluto(Daemon):
    """The daemon of one machine: start(), then stop() or kill(), and start() again."""

    name = "pluto"

    @property
    def socket(self) -> Path:
        """The daemon's socket, as reached from outside the machine."""
        return self.machine.path(SOCKET)

    def start(self) -> None:
        """Start the daemon and return when it listens for IKE."""
        directory = self._prepare()
        self._process = self.machine.start(
            [
                *(f"{LIBEXEC}/pluto", "--nofork", "--stderrlog"),
                # The file's settings, and what it leaves out, replace what comes before it.
                *("--config", f"{directory}/ipsec.conf"),
                *("--rundir", str(Path(SOCKET).parent), "--nssdir", f"{directory}/nss"),
                *("--secretsfile", f"{directory}/ipsec.secrets"),
            ],
            log="pluto.log",
        )
        self._process.wait_for(self._answers, "the control socket")
        whack = [f"{LIBEXEC}/whack", "--ctlsocket", SOCKET]
        self.machine.run([*whack, "--listen"])

    def _prepare(self) -> Path:
        """Write what the daemon reads as it starts; a database without certificates too."""
        directory = self.machine.directory / "pluto"
        self.machine.path(SOCKET).parent.mkdir(exist_ok=True, mode=0o700)
        if not directory.exists():
            (directory / "nss").mkdir(parents=True, mode=0o700)
            (directory / "ipsec.conf").write_text(_CONFIGURATION)
            (directory / "ipsec.secrets").write_text(
                f"include {DEFAULT_SOCKET.parent}/{DIRECTORY}/*.secrets\n"
            )
            self.machine.run(["certutil", "-N", "-d", f"sql:{directory}/nss", "--empty-password"])
        return directory

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

"""The way to Libreswan's daemon: its own programs, and a directory in memory beside its socket.

A tunnel there is two files: its connection, and for as long as it is needed its secrets,
which the daemon reads through a line `include …/carnet/*.secrets` of its ipsec.secrets.
"""

import ctypes
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from carnet.errors import DaemonGoneError, DaemonSilentError, IPsecError
from carnet.files import write_private
from carnet.ipsec import programs
from carnet.ipsec.living import lives
from carnet.ipsec.unanswered import unanswered

PROGRAMS = ("pluto",)
"""What the daemon's process is called."""
LIBEXEC = Path("/usr/libexec/ipsec")
DEFAULT_SOCKET = Path("/run/pluto/pluto.ctl")
DIRECTORY = "carnet"
"""Beside the socket."""

ANSWER_TIME_LIMIT = 10.0
"""Seconds in which the daemon answers what it can answer from its memory."""

_MEMORY = frozenset({0x01021994, 0x858458F6})
"""What statfs(2) calls tmpfs and ramfs."""

_UNREACHED = re.compile(
    r"^whack: (?:Pluto is not running|no right|is Pluto running\?|.*connect\(\))", re.MULTILINE
)
"""What whack says without a socket, or with one that a daemon has left behind."""

_BROKEN_OFF = re.compile(r"^whack: ", re.MULTILINE)
"""How whack begins what it says itself; each line of the daemon's begins with a number."""

_ROOT_ONLY = "The Libreswan daemon may be driven by root only; run this as root."

_libc = ctypes.CDLL(None, use_errno=True)


class Tools:
    """Libreswan's programs, for the daemon at one control socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.directory = socket.parent / DIRECTORY

    def answers(self) -> bool:
        """Tell whether the daemon is there for this user, if only silent."""
        try:
            self.whack("--fipsstatus")
        except DaemonSilentError:
            return True
        except IPsecError:
            return False
        return True

    def whack(self, *order: str, seconds: float = ANSWER_TIME_LIMIT) -> str:
        """Give the daemon an order and return what it says, whether it obeys or not.

        Raises IPsecError if it cannot be reached, or its answer is not whole: less than it
        says would be taken for all that there is.
        """
        said, status = self._run("whack", order, seconds)
        if status and _UNREACHED.search(said):
            if "Permission denied" in said or "no right" in said:
                raise IPsecError(_ROOT_ONLY)
            raise self._unreached()
        if status < 0 or _BROKEN_OFF.search(said):
            raise IPsecError("The Libreswan daemon's answer broke off; see its log and try again.")
        return said

    def _unreached(self) -> IPsecError:
        if lives(self._socket, PROGRAMS):
            return DaemonSilentError(
                f"The Libreswan daemon runs, and does not answer at {self._socket}; restart it"
                " (systemctl restart ipsec) and try again."
            )
        return DaemonGoneError(
            f"The Libreswan daemon does not answer at {self._socket};"
            " start it (systemctl start ipsec) and try again."
        )

    def ask_briefly_first(self) -> None:
        """Raise IPsecError if the daemon was silent just before: see carnet.ipsec.unanswered.

        That is for what would wait for it again and again, and not for who watches it: a busy
        one is slow.
        """
        unanswered.ask_first(
            self._socket, lambda seconds: self.whack("--fipsstatus", seconds=seconds)
        )

    def add(self, name: str, text: str) -> None:
        """Write a tunnel's connection and have the daemon load it.

        Raises IPsecError if Libreswan's own parser, or the daemon, refuses it.
        """
        path = self.connection(name)
        write_private(path, text.encode())
        said, status = self._run("addconn", ("--config", str(path), name), ANSWER_TIME_LIMIT)
        # It says nothing of what the daemon refuses.
        if status or said.strip() or f'"{name}"' not in self.whack("--status"):
            why = " ".join(said.split()) or "for a reason in its log"
            raise IPsecError(f"Libreswan refuses the tunnel ({why}); see its log.")

    def load_secrets(self, name: str, text: str, identity: str) -> None:
        """Write a tunnel's secrets, in memory only, and have the daemon read them.

        `identity` is one that they are for. Raises IPsecError if the daemon reads others.
        """
        write_private(self._secrets(name), text.encode())
        if identity not in self.whack("--rereadsecrets", "--listpsks").split():
            raise IPsecError(
                f"Libreswan does not read the secrets of tunnels; add the line"
                f" `include {DEFAULT_SOCKET.parent / DIRECTORY}/*.secrets` to"
                " /etc/ipsec.secrets."
            )

    def drop_secrets(self, name: str) -> None:
        """Remove a tunnel's secrets, and have the daemon forget them."""
        self._secrets(name).unlink(missing_ok=True)
        self.whack("--rereadsecrets")

    def delete(self, name: str) -> str:
        """Remove a tunnel's secrets, end it, and return what the daemon says it then has."""
        self._secrets(name).unlink(missing_ok=True)
        self.ask_briefly_first()
        return self.whack("--name", name, "--delete", "--rereadsecrets", "--status")

    def note_interface(self, name: str, interface: str) -> None:
        """Write down to which interface the address inside of a tunnel is about to be given."""
        noted = dict.fromkeys([*self.interfaces(name), interface])
        write_private(self._interfaces(name), "\n".join(noted).encode())

    def interfaces(self, name: str) -> list[str]:
        """Return which have been written down; none where it never came up."""
        try:
            return self._interfaces(name).read_text().splitlines()
        except OSError:
            return []

    def drop_connection(self, name: str) -> None:
        """Remove a tunnel's files."""
        self.connection(name).unlink(missing_ok=True)
        self._interfaces(name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Return of which tunnels there are files."""
        try:
            found = list(self.directory.iterdir())
        except (FileNotFoundError, PermissionError):
            return set()
        return {path.stem for path in found if path.suffix in (".conf", ".secrets")}

    def connection(self, name: str) -> Path:
        """Return a tunnel's file, whether there is one or not."""
        return self.directory / f"{name}.conf"

    def _interfaces(self, name: str) -> Path:
        return self.directory / f"{name}.interfaces"

    def _secrets(self, name: str) -> Path:
        return self.directory / f"{name}.secrets"

    def make_directory(self) -> None:
        """Make the directory, if there is none; raises IPsecError if it is not private memory."""
        if not is_in_memory(self._socket.parent):
            raise IPsecError(
                f"{self._socket.parent} is no file system in memory, and secrets must not reach"
                " a disk; mount a tmpfs there."
            )
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise IPsecError(
                f"{self.directory} cannot be made ({error.strerror}); run this as root."
            ) from error
        facts = self.directory.lstat()
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise IPsecError(f"{self.directory} is open to others; remove it and try again.")

    def _run(self, program: str, order: Sequence[str], seconds: float) -> tuple[str, int]:
        """Run one of Libreswan's programs; there is never a secret among its arguments."""
        command = [str(LIBEXEC / program), "--ctlsocket", str(self._socket), *order]
        try:
            with unanswered.noted(self._socket, subprocess.TimeoutExpired):
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    check=False,
                    timeout=seconds,
                )
        except FileNotFoundError as error:
            raise IPsecError(
                "Libreswan is not installed; install the package libreswan, or choose another"
                " driver."
            ) from error
        except PermissionError as error:
            raise IPsecError(_ROOT_ONLY) from error
        except OSError as error:
            raise programs.cannot_start(program, error) from error
        except subprocess.TimeoutExpired as error:
            raise DaemonSilentError(
                f"The Libreswan daemon takes over {seconds:g} seconds to answer; see its log."
            ) from error
        return done.stdout + done.stderr, done.returncode


def is_in_memory(path: Path) -> bool:
    """Tell whether a path is in a file system that is memory; False where it is not known."""
    facts = ctypes.create_string_buffer(512)
    if _libc.statfs(os.fsencode(path), facts):
        return False
    return int(ctypes.c_long.from_buffer(facts).value) & 0xFFFFFFFF in _MEMORY

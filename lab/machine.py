"""A machine of the lab: namespaces of its own, held by one process, the keeper.

The keeper is the first process of the machine's PID namespace and waits on a pipe
to its maker. When the maker ends, however it ends, the pipe closes, the keeper
ends, and with it everything: the kernel kills whatever else runs in that PID
namespace, and drops the mounts, interfaces and namespaces that nobody uses.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lab.errors import LabError
from lab.process import Process, Started, only_child
from lab.template import Forked, Place, Template, template_for
from lab.waiting import TIME_LIMIT, wait_until

_UNSHARE = (
    *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc"),
    *("--fork", "--kill-child=SIGKILL", "--mount-proc"),
)

_KEEPER = """set -e
umask 022
hostname "$1"
mount --all --fstab "/proc/self/fd/$2"
mkdir -p -m 0700 "/run/user/$3"
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
echo ready
exec cat
"""
"""A private /run and /dev/shm, nothing of the others' directories, and no IPv6 chatter.

With few programs: machines are made by the hundred, and in a slow kernel.
"""

# The source is nothing that may be mounted there already, which mount(8) would leave as it is.
_OWN = (
    "machine /run tmpfs mode=0755,nosuid,nodev",
    "machine /dev/shm tmpfs mode=1777,nosuid,nodev",
)
_HIDDEN = "machine {} tmpfs ro,mode=0700,size=4k"

SYSTEM_TOKENS = Path("/var/lib/softhsm/tokens")
"""Where SoftHSM2 has its tokens unless it is told otherwise: none of a lab machine's."""

_PATH = f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

_LISTENING = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it."""


def _enter_network(namespace: int) -> None:
    """Let this thread go on in another network namespace (setns(2))."""
    if _libc.setns(namespace, _CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        raise LabError(f"A machine's network cannot be entered ({reason}); run this as root.")


def _hidden(directory: Path) -> str:
    """Return the line of fstab(5) that hides a directory."""
    return _HIDDEN.format(str(directory).replace(" ", r"\040"))


def _table(lines: Sequence[str]) -> IO[str]:
    """Return a file in memory, which mount(8) reads by a name: it reads no pipe."""
    table = os.fdopen(os.memfd_create("fstab"), "w")
    table.write("".join(f"{line}\n" for line in lines))
    table.flush()
    return table


def _private_log(path: Path | None) -> IO[str]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.fdopen(os.open(path or os.devnull, flags, 0o600), "a")


class Machine:
    """One host: run() a command in it, or start() a program that stays."""

    def __init__(self, name: str, directory: Path, hidden: Sequence[Path] = ()) -> None:
        self.name = name
        self.directory = directory
        # isdir() takes what may not be looked into for what is not there: nobody sees that here.
        hidden = [*hidden, *filter(os.path.isdir, [SYSTEM_TOKENS])]
        with _table([*_OWN, *map(_hidden, hidden)]) as table:
            argv = ["sh", "-c", _KEEPER, "keeper", name, str(table.fileno()), str(os.geteuid())]
            self._keeper = subprocess.Popen(
                [*_UNSHARE, *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[table.fileno()],
            )
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The keeper's process id: the handle by which namespaces are entered."""
        if self._pid is None:
            self._pid = self._wait_until_ready()
        return self._pid

    def _wait_until_ready(self) -> int:
        keeper = self._keeper
        if keeper.stdout is None or keeper.stdout.readline() != b"ready\n":
            rest = keeper.communicate()[0].decode(errors="replace")
            raise LabError(f"The machine {self.name} does not start: {rest.strip()}")
        pid = only_child(keeper.pid)
        if pid is None:
            raise LabError(f"The machine {self.name} ended as it started.")
        return pid

    def path(self, inside: str) -> Path:
        """Return a way from outside to a path of this machine, such as its /run."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what programs find in their environment: little, and nothing of ours."""
        own = {"HOME": str(self.directory), "PATH": _PATH, "LANG": "C.UTF-8"}
        return own | dict(extra or {})

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        extra: Mapping[str, str] | None = None,
        check: bool = True,
        seconds: float = 60,
        pass_fds: Sequence[int] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; raise LabError with its output if it fails.

        `stdin` is what the command reads, `extra` what its environment has besides.
        Neither is shown in an error.
        """
        template = template_for(argv)
        given: dict[str, Any] = {"timeout": seconds, "pass_fds": pass_fds}
        try:
            if template:
                done = template.run(argv, self._place(extra), stdin=stdin or "", **given)
            else:
                done = subprocess.run(
                    ["nsenter", *self.enter(argv)],
                    env=self.environment(extra),
                    input=stdin or "",
                    capture_output=True,
                    text=True,
                    check=False,
                    **given,
                )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{argv[0]} on {self.name} took over {seconds:g} seconds.") from error
        if check and done.returncode:
            said = (done.stdout + done.stderr).strip()
            raise LabError(f"{argv[0]} on {self.name} ended with {done.returncode}: {said}")
        return done

    def start(
        self,
        argv: Sequence[str],
        *,
        log: str | None = None,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        extra: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        """Start a program that stays.

        What it prints goes to the file `log` of the machine's directory, or to `stdout`.
        """
        path = self.directory / log if log else None
        template = template_for(argv) if stdin == stdout == subprocess.DEVNULL else None
        with _private_log(path) as file:
            before = path.stat().st_size if path else 0
            if template:
                started: Started = self._forked(template, argv, file, extra, pass_fds)
            else:
                started = subprocess.Popen(
                    ["nsenter", *self.enter(argv)],
                    env=self.environment(extra),
                    stdin=stdin,
                    stdout=file if path else stdout,
                    stderr=file if path else stdout,
                    start_new_session=True,
                    pass_fds=pass_fds,
                )
        return Process(f"{Path(argv[0]).name} on {self.name}", started, path, before)

    def _forked(
        self,
        template: Template,
        argv: Sequence[str],
        log: IO[str],
        extra: Mapping[str, str] | None,
        pass_fds: Sequence[int],
    ) -> Forked:
        with Path(os.devnull).open("rb") as nothing:
            stdio = [each.fileno() for each in (nothing, log, log)]
            place = self._place(extra)
            return template.start(argv, place, stdio, pass_fds=pass_fds, session=True)

    def _place(self, extra: Mapping[str, str] | None) -> Place:
        return Place(self.environment(extra), self.directory, self.pid)

    def enter(self, argv: Sequence[str]) -> list[str]:
        """Return nsenter's arguments that run a command on this machine."""
        return [
            *(f"--target={self.pid}", "--net", "--mount", "--pid", "--uts", "--ipc"),
            *(f"--wdns={self.directory}", "setpriv", "--pdeathsig", "KILL", "--", *argv),
        ]

    @contextmanager
    def network(self) -> Iterator[None]:
        """Have this thread's sockets, and the programs that it starts, in this machine's network.

        Nothing else of the machine is entered: cheap, where a look at the network is all.
        """
        with (
            Path("/proc/thread-self/ns/net").open("rb") as own,
            Path(f"/proc/{self.pid}/ns/net").open("rb") as there,
        ):
            _enter_network(there.fileno())
            try:
                yield
            finally:
                _enter_network(own.fileno())

    def listens_on(self, port: int) -> bool:
        """Whether some program of this machine accepts TCP connections on that port."""
        tables = (Path(f"/proc/{self.pid}/net/{name}") for name in ("tcp", "tcp6"))
        lines = (line for table in tables for line in table.read_text().splitlines()[1:])
        rows = (line.split() for line in lines)
        return any(row[3] == _LISTENING and int(row[1].split(":")[1], 16) == port for row in rows)

    def wait_for_port(self, port: int, seconds: float = TIME_LIMIT) -> None:
        """Wait until some program of this machine accepts TCP connections on that port."""
        wait_until(lambda: self.listens_on(port), f"port {port} of {self.name}", seconds)

    def wait_for_path(self, inside: str, seconds: float = TIME_LIMIT) -> None:
        """Wait until that path is there on this machine."""
        wait_until(self.path(inside).exists, f"{inside} on {self.name}", seconds)

    def close(self) -> None:
        """End the machine and all that runs in it; return when it is gone."""
        if self._keeper.stdin:
            self._keeper.stdin.close()
        self._keeper.wait(TIME_LIMIT)
        if self._keeper.stdout:
            self._keeper.stdout.close()

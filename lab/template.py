"""A process that has a command's modules loaded, and forks for each time it is run.

For a guest kernel, where it takes Python two seconds to load what `carnet` needs. What
runs is the command's own entry point, in a process of its own, in the namespaces of a
machine; modules of tokens are loaded after the fork, as they must be.
"""

import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

from lab.errors import LabError
from lab.machine import Machine
from lab.scratch import Scratch

_ALSO_LOADED = (
    *("token_client.agent", "token_client.booklet", "token_client.connect", "token_client.nat"),
    *("token_client.cli", "token_client.options", "token_client.status", "token_client.steps"),
    *("carnet.pin", "carnet.ipsec.strongswan"),
)
"""What commands load when they need it."""

_MESSAGE = 1 << 16
_MOST_FDS = 8
_OUT_OF_THE_WAY = 100
_NAMESPACES = 0x40000000 | 0x00020000 | 0x20000000 | 0x04000000 | 0x08000000
"""Network, mounts, process ids, host name, IPC (setns(2) with a process)."""


class Template:
    """The process, for one command such as `carnet`; a context manager that ends it."""

    def __init__(self, command: str) -> None:
        self._scratch = Scratch("carnet-template-")
        path = self._scratch.directory / "socket"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lab.template", command, str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        self._path = path

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def directory(self) -> Path:
        """Where its socket is; gone when it is."""
        return self._scratch.directory

    def run(
        self,
        machine: Machine,
        argv: Sequence[str],
        *,
        extra: Mapping[str, str] | None = None,
        seconds: float = 60,
        pass_fds: Sequence[int] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command on a machine, as Machine.run() does; it may fail, the caller looks."""
        with (
            Path(os.devnull).open("rb") as nothing,
            TemporaryFile() as out,
            TemporaryFile() as err,
            self._connected(seconds) as connection,
        ):
            order = {
                "argv": list(argv),
                "machine": machine.pid,
                "directory": str(machine.directory),
                "environment": machine.environment(extra),
                "fds": [0, 1, 2, *pass_fds],
            }
            given = [nothing.fileno(), out.fileno(), err.fileno(), *pass_fds]
            socket.send_fds(connection, [json.dumps(order).encode()], given)
            try:
                status = json.loads(connection.recv(_MESSAGE) or b"1")
            except TimeoutError as error:
                raise LabError(
                    f"{argv[0]} on {machine.name} took over {seconds:g} seconds."
                ) from error
            said = [_content(each) for each in (out, err)]
        return subprocess.CompletedProcess(list(argv), status, *said)

    def _connected(self, seconds: float) -> socket.socket:
        if not self._path.exists() and self._process.stdout is not None:
            self._process.stdout.readline()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(seconds)
        connection.connect(str(self._path))
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._scratch.close()


def _content(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode(errors="replace"))


def serve(command: str, path: str) -> None:
    """Load the command's modules, and fork for every order that comes."""
    (script,) = entry_points(group="console_scripts", name=command)
    entry = script.load()
    for name in _ALSO_LOADED:
        import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _obey(connection, entry)
            connection.close()


def _obey(connection: socket.socket, entry: Any) -> None:
    """Run one order in the machine's namespaces, and tell its exit status; never returns."""
    message, fds, _, _ = socket.recv_fds(connection, _MESSAGE, _MOST_FDS)
    order = json.loads(message)
    machine = os.pidfd_open(order["machine"])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(machine, _NAMESPACES):
        sys.exit(os.strerror(ctypes.get_errno()))
    # Only a child is in the machine's namespace of process ids.
    child = os.fork()
    if child == 0:
        connection.close()
        _become(order, fds)
        os._exit(_status_of(entry))
    _, status = os.waitpid(child, 0)
    connection.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(order: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Take over descriptors, environment, directory and arguments of an order."""
    moved = [_moved(fd) for fd in fds]
    for fd, wanted in zip(moved, order["fds"], strict=True):
        os.dup2(fd, wanted)
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    sys.argv = list(order["argv"])


def _moved(fd: int) -> int:
    """Return the descriptor under a number that no order asks for."""
    moved = os.dup2(fd, fd + _OUT_OF_THE_WAY)
    os.close(fd)
    return moved


def _status_of(entry: Any) -> int:
    """Run the entry point as a console script does."""
    try:
        status = entry()
    except SystemExit as end:
        status = end.code
    except Exception:  # noqa: BLE001  what Python itself does at its end
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(bool(status))


if __name__ == "__main__":
    serve(*sys.argv[1:])

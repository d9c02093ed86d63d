"""The process that forks for each command: `python -m lab.fork_server FD MODULE…`.

It loads the modules, takes orders from the socket FD (lab.template), and ends with it, and
the commands with it. By itself it imports the standard library alone.
"""

import atexit
import ctypes
import errno
import fcntl
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, reload
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lab.heap import fill_holes
from lab.pages import Footprint, settle
from lab.waiting import IN_GUEST

_MESSAGE = 1 << 16
_MOST_FDS = 16
_OUT_OF_THE_WAY = 100
_PROCESS_IDS = 0x20000000
_OTHERS = 0x40000000 | 0x00020000 | 0x04000000 | 0x08000000
"""Namespaces (setns(2) with a process): network, mounts, host name, IPC."""
READ_AS_THEY_LOAD = ("carnet.crash",)
"""Modules that read the environment as they load; they do so again in the command's."""
_STARTS_ANOTHER, _BY_MODULE = "carnet", "token_client.background"
"""The command that starts one which outlives it, and by what: that is forked, too."""
_ASKED_FOR_BY_NONE = 500
"""A file descriptor that no order asks for."""
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 45, 46
"""Where proc_pid_stat(5) tells these, counted from behind the program's name."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

Order = Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """A command that runs: its process id, and the socket on which its end is told."""

    pid: int
    answers: int


def main(control: int, modules: Sequence[str]) -> None:
    """Load the modules, and fork for every order that comes."""
    gc.disable()
    for name in modules:
        import_module(name)
    gc.collect()
    fill_holes()
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if IN_GUEST in os.environ:
        settle()
    here, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs = _out_of_the_way(theirs)
    order = _order_of_this_process(socket.socket(fileno=control), here)
    if order is not None:
        if Path(order["argv"][0]).name == _STARTS_ANOTHER:
            _have_it_start_another(order, theirs)
        else:
            theirs.close()
        _run(order)


def _order_of_this_process(orders: socket.socket, commands_own: socket.socket) -> Order | None:
    """Return an order in the process that is to carry it out; None in this one, at its end.

    That comes with the end of `orders`; by the other socket, commands have others started.
    """
    commands: dict[int, Command] = {}
    with orders, commands_own:
        while True:
            sources = {each.fileno(): each for each in (orders, commands_own)}
            ready, _, _ = select.select([*sources, *commands], [], [])
            for handle in commands.keys() & ready:
                _tell_end(handle, commands.pop(handle))
            source = next((each for fd, each in sources.items() if fd in ready), None)
            if source is None:
                continue
            message, fds, _, _ = socket.recv_fds(source, _MESSAGE, _MOST_FDS)
            if not message:
                return None
            order: Order = json.loads(message)
            footprint = _footprint_of(order)
            if _is_the_command(order, fds, commands):
                break
    if source is commands_own:
        _show(order["argv"])
        _tell(fds[0], os.getpid())
    _close([fds[0], *commands, *(each.answers for each in commands.values())])
    if order["session"]:
        os.setsid()
    if footprint is not None:
        footprint.follow()
        atexit.register(footprint.note)
    _take_over(order, fds[1:])
    return order


_footprints: dict[str, Footprint] = {}


def _footprint_of(order: Order) -> Footprint | None:
    """Return what the program has taken so far, in a guest kernel."""
    if IN_GUEST not in os.environ:
        return None
    program = Path(order["argv"][0]).name
    if program not in _footprints:
        _footprints[program] = Footprint()
    return _footprints[program]


def _out_of_the_way(server: socket.socket) -> socket.socket:
    """Return the socket under a number that no order asks for, closed where a program begins."""
    with server:
        return socket.socket(fileno=fcntl.fcntl(server, fcntl.F_DUPFD_CLOEXEC, _ASKED_FOR_BY_NONE))


def _have_it_start_another(order: Order, server: socket.socket) -> None:
    """Have the command order from the server what it would start as a program of its own.

    Forked from there that has none of the command's threads, and no module that is loaded.
    """

    def start(argv: Sequence[str], *, cwd: str, **_: Any) -> None:
        another = {
            "argv": ["python", *argv[1:]],
            "machine": order["machine"],
            "directory": cwd,
            "environment": dict(os.environ),
            "fds": [0, 1, 2],
            "session": True,
        }
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answers, Path(os.devnull).open("r+b", 0) as nothing:
            with theirs:
                given = [theirs.fileno(), *3 * [nothing.fileno()]]
                socket.send_fds(server, [json.dumps(another).encode()], given)
            # The server tells that it has forked, and what was forked that it goes by its name.
            if not all(answers.recv(_MESSAGE) for _ in range(2)):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    module: Any = sys.modules.get(_BY_MODULE)
    if module is not None:
        module.subprocess = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL)


def _show(argv: Sequence[str]) -> None:
    """Show these as the process's arguments, in the place of the server's."""
    told = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(told[_ARGUMENTS_BEGIN]), int(told[_ARGUMENTS_END])
    shown = b"".join(os.fsencode(each) + b"\0" for each in argv)
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)


def _is_the_command(order: Order, fds: Sequence[int], commands: dict[int, Command]) -> bool:
    """Fork, and return whether this is the child; note and tell of it in the parent."""
    try:
        child = _fork(order["machine"])
    except OSError as error:
        print(f"A machine cannot be entered: {error}.", file=sys.stderr)
        _close(fds)
        return False
    if child == 0:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return True
    _close(fds[1:])
    commands[os.pidfd_open(child)] = Command(child, fds[0])
    _tell(fds[0], child)
    return False


def _fork(machine: int | None) -> int:
    """Fork; the child, for which this is 0, is in the machine's namespaces. Raises OSError.

    It is forked but once, for that is what takes long. Only a child is in another namespace
    of process ids, so this process has its next one there, and then again here.
    """
    if machine is None:
        return os.fork()
    here, there = os.pidfd_open(os.getpid()), os.pidfd_open(machine)
    child = -1
    try:
        _enter(there, _PROCESS_IDS)
        try:
            child = os.fork()
        finally:
            if child:
                _enter(here, _PROCESS_IDS)
        if child == 0 and _libc.setns(there, _OTHERS):
            os._exit(1)
    finally:
        _close([here, there])
    return child


def _enter(process: int, namespaces: int) -> None:
    """Enter namespaces of a process; raises OSError."""
    if _libc.setns(process, namespaces):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _tell_end(handle: int, command: Command) -> None:
    """Tell with which status a command ended."""
    _, status = os.waitpid(command.pid, 0)
    _tell(command.answers, os.waitstatus_to_exitcode(status))
    _close([handle, command.answers])


def _tell(answers: int, number: int) -> None:
    # Whoever started the command may be gone.
    with suppress(OSError):
        os.write(answers, json.dumps(number).encode())


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _take_over(order: Order, fds: Sequence[int]) -> None:
    """Take over descriptors, environment, directory and signals, as a new program would."""
    moved = [_moved(fd) for fd in fds]
    for fd, wanted in zip(moved, order["fds"], strict=True):
        os.dup2(fd, wanted)
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["directory"])
    for name in READ_AS_THEY_LOAD:
        if name in sys.modules:
            reload(sys.modules[name])
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _moved(fd: int) -> int:
    """Return the descriptor under a number that no order asks for."""
    moved = os.dup2(fd, fd + _OUT_OF_THE_WAY)
    os.close(fd)
    return moved


def _run(order: Order) -> None:
    """Be the program: what it raises ends this process as it would end that."""
    try:
        _call(*order["argv"])
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        status = end.code or 0
    else:
        status = 0
    # As Python ends, but that it would now take apart all that is loaded: the longest part.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _call(program: str, *arguments: str) -> None:
    """Run a script of the environment's PATH, or a module as `python -m MODULE` does."""
    if program == "python":
        _, module, *rest = arguments
        sys.argv, sys.path[0] = [program, *rest], str(Path.cwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        script = shutil.which(program)
        if script is None:
            sys.exit(f"There is no program {program}.")
        sys.argv, sys.path[0] = [script, *arguments], str(Path(script).parent)
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""The process that forks for each command: `python -m lab.fork_server FD MODULE…`.

It loads the modules, takes orders from the socket FD (lab.template), and ends with it. By
itself it imports the standard library alone.
"""

import atexit
import ctypes
import gc
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module, reload
from pathlib import Path
from typing import Any

_MESSAGE = 1 << 16
_MOST_FDS = 16
_OUT_OF_THE_WAY = 100
_NAMESPACES = 0x40000000 | 0x00020000 | 0x20000000 | 0x04000000 | 0x08000000
"""Network, mounts, process ids, host name, IPC (setns(2) with a process)."""
READ_AS_THEY_LOAD = ("carnet.crash",)
"""Modules that read the environment as they load; they do so again in the command's."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

Order = Mapping[str, Any]


def main(control: int, modules: Sequence[str]) -> None:
    """Load the modules, and fork for every order that comes."""
    for name in modules:
        import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    order = _order_of_this_process(control)
    if order is not None:
        _run(order)


def _order_of_this_process(control: int) -> Order | None:
    """Return an order in the process that is to carry it out; None in this one, at its end."""
    with socket.socket(fileno=control) as orders:
        while True:
            message, fds, _, _ = socket.recv_fds(orders, _MESSAGE, _MOST_FDS)
            if not message:
                return None
            if os.fork() == 0:
                break
            for fd in fds:
                os.close(fd)
    order: Order = json.loads(message)
    _fork_again(order, fds[0], fds[1:])
    _take_over(order, fds[1:])
    return order


def _fork_again(order: Order, answers: int, fds: Sequence[int]) -> None:
    """Go on as a child, in the machine's namespaces; the parent waits as nsenter does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if order["session"]:
        os.setsid()
    if order["machine"] is not None:
        _enter(order["machine"])
    # Only a child is in the machine's namespace of process ids.
    child = os.fork()
    if child == 0:
        os.close(answers)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    for fd in fds:
        os.close(fd)
    os.write(answers, json.dumps([os.getpid(), child]).encode())
    os.write(answers, json.dumps(_status_of(child, in_machine=bool(order["machine"]))).encode())
    os._exit(0)


def _enter(pid: int) -> None:
    machine = os.pidfd_open(pid)
    if _libc.setns(machine, _NAMESPACES):
        sys.exit(f"A machine cannot be entered: {os.strerror(ctypes.get_errno())}.")
    os.close(machine)


def _status_of(child: int, *, in_machine: bool) -> int:
    """Wait for the child; where nsenter would stop and go on with it, so does this process."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED if in_machine else 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(child, signal.SIGCONT)


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

"""A person at a terminal: runs a command on a machine and types what it asks for."""

import sys
from collections.abc import Mapping, Sequence

import pexpect

from lab.machine import Machine

_COLUMNS = 100
_SECONDS = 90


def type_in(
    machine: Machine, argv: Sequence[str], typed: Mapping[str, str], *, show: bool
) -> tuple[int, str]:
    """Run a command at a terminal of its own; return its exit status and what it showed.

    `typed` is what to type at which prompt. With `show`, what the command shows is
    shown here too; what is typed at a prompt that hides it is not.
    """
    child = pexpect.spawn(
        "nsenter",
        machine.enter(argv),
        env={**machine.environment(), "TERM": "xterm-256color"},
        encoding="utf-8",
        timeout=_SECONDS,
        dimensions=(40, _COLUMNS),
    )
    shown: list[str] = []
    child.logfile_read = _Both(shown, show=show)
    for prompt, answer in typed.items():
        child.expect(prompt)
        child.waitnoecho()
        child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus if child.exitstatus is not None else -1, "".join(shown)


class _Both:
    """Keeps what a command shows, and shows it."""

    def __init__(self, shown: list[str], *, show: bool) -> None:
        self._shown = shown
        self._show = show

    def write(self, text: str) -> None:
        self._shown.append(text)
        if self._show:
            sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()

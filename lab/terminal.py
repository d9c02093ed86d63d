"""A person at a terminal: runs commands on a machine and types what they ask for."""

import sys
from collections.abc import Mapping, Sequence

import click
import pexpect

from lab.machine import Machine

_KIND = "xterm-256color"
_COLUMNS = 100
_SECONDS = 90
_REPEAT = r"(?i)repeat[^:\r\n]*: "


class Terminal:
    """One command at a terminal of its own.

    `typed` is what to type at which prompt (regular expressions), as often as it is
    asked for; where a prompt asks to repeat, what was typed last. With `show`, what
    the command shows is shown here too; what is typed at a prompt that hides it is not.
    Where that goes to no terminal, the command has one without moving parts, and whole lines
    are shown without colours.
    """

    def __init__(
        self, machine: Machine, argv: Sequence[str], typed: Mapping[str, str], *, show: bool = False
    ) -> None:
        self._typed = dict(typed)
        self._shown = _Shown(show=show)
        self._child = pexpect.spawn(
            "nsenter",
            machine.enter(argv),
            env={**machine.environment(), "TERM": _KIND if self._shown.fully else "dumb"},
            encoding="utf-8",
            timeout=_SECONDS,
            dimensions=(40, _COLUMNS),
        )
        self._child.logfile_read = self._shown

    @property
    def output(self) -> str:
        """All that the command has shown."""
        return "".join(self._shown.parts)

    def type_until(self, pattern: str) -> None:
        """Answer prompts until the command shows something."""
        self._answer_prompts(pattern)

    def finish(self) -> int:
        """Answer prompts until the command ends; return its exit status."""
        self._answer_prompts(pexpect.EOF)
        self._shown.end()
        self._child.close()
        return self._child.exitstatus if self._child.exitstatus is not None else -1

    def close(self) -> None:
        """End the command."""
        self._child.close(force=True)

    def _answer_prompts(self, last: object) -> None:
        prompts = list(self._typed)
        answer = ""
        while (found := self._child.expect([last, _REPEAT, *prompts])) != 0:
            answer = answer if found == 1 else self._typed[prompts[found - 2]]
            self._child.waitnoecho()
            self._child.sendline(answer)


def type_in(
    machine: Machine, argv: Sequence[str], typed: Mapping[str, str], *, show: bool
) -> tuple[int, str]:
    """Run a command at a terminal to its end; return its exit status and what it showed."""
    terminal = Terminal(machine, argv, typed, show=show)
    return terminal.finish(), terminal.output


class _Shown:
    """Keeps what a command shows, and shows it."""

    def __init__(self, *, show: bool) -> None:
        self.parts: list[str] = []
        self._show = show
        self.fully = not show or sys.stdout.isatty()
        """Whether it is shown with all that a terminal can do, or is only kept."""
        self._line = ""

    def write(self, text: str) -> None:
        self.parts.append(text)
        if self._show and self.fully:
            sys.stdout.write(text)
        elif self._show:
            *lines, self._line = (self._line + text).split("\n")
            sys.stdout.writelines(f"{_plain(line)}\n" for line in lines)

    def end(self) -> None:
        """Show what came last without the end of a line."""
        if self._line:
            self.write("\n")

    def flush(self) -> None:
        sys.stdout.flush()


def _plain(line: str) -> str:
    # A terminal writes each line's end by two characters.
    return click.unstyle(line).replace("\r", "")

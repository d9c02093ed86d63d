"""How the commands talk with people: complaints, questions, tables, facts as JSON."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from carnet.durations import LONGEST_SECONDS, format_duration, parse_duration
from carnet.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

_NOBODYS_TERMINAL = 250
"""Columns where no terminal says how many it has."""


class Duration(click.ParamType[int]):
    """A command's option that is a duration, such as 8h; its value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds; a usage error where it is no duration."""
        if isinstance(value, int):
            return value
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds > LONGEST_SECONDS:
            longest = format_duration(LONGEST_SECONDS)
            self.fail(f"{value!r} is longer than {longest}, the longest there is.", param, ctx)
        return seconds


DURATION = Duration()


def complain(sentence: str) -> None:
    """Say what is wrong on standard error, where anybody hears it."""
    with heard_or_not():
        click.echo(sentence, err=True)


@contextmanager
def heard_or_not() -> Iterator[None]:
    """Let an error output that takes nothing change nothing of the exit status."""
    try:
        yield
    except OSError:
        _discard(sys.stderr)


def finish_output() -> None:
    """Write out what is left; an output that takes nothing more is not tried again at the end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)
        raise


def _discard(output: TextIO) -> None:
    """Have what is still to be written go nowhere, or Python fails with it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def has_terminal() -> bool:
    """Tell whether there is somebody to ask; where standard input is closed there is nobody."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask; click.Abort on a no, UsageError where there is nobody to ask and no `--yes`."""
    if yes:
        return
    if not has_terminal():
        raise UsageError(f"{question} There is no terminal to answer at; confirm with --yes.")
    click.confirm(question, abort=True, err=True)


def require_output() -> None:
    """Raise UsageError where standard output is closed."""
    if sys.stdout is None:
        raise UsageError("The standard output is closed; open it, and try again.")


def print_json(facts: object) -> None:
    """Print facts for scripts, in ASCII, bytes as hexadecimal.

    Raises UsageError where nobody can read.
    """
    require_output()
    click.echo(json.dumps(facts, default=_plain))


def print_table(table: "Table") -> None:
    """Print a table for a person; where no terminal says how wide it is, nothing is cut.

    Raises UsageError where nobody can read.
    """
    require_output()
    from rich.console import Console  # noqa: PLC0415  the traveller's command needs none

    Console(width=None if sys.stdout.isatty() else _NOBODYS_TERMINAL).print(table)


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    return str(value)

"""What the four commands have in common: errors, PINs, facts as JSON."""

import errno
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO, TypeVar

import click

from carnet.durations import LONGEST_SECONDS, format_duration, parse_duration
from carnet.entry import INTERRUPTED
from carnet.errors import CarnetError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

PIN_VARIABLE = "CARNET_PIN"
SO_PIN_VARIABLE = "CARNET_SO_PIN"
NEW_PIN_VARIABLE = "CARNET_NEW_PIN"
PASSPHRASE_VARIABLE = "CARNET_OFFICER_PASSPHRASE"  # noqa: S105 - names it, is none
SECRET_VARIABLES = (PIN_VARIABLE, SO_PIN_VARIABLE, NEW_PIN_VARIABLE, PASSPHRASE_VARIABLE)
_taken: dict[str, str] = {}
"""What was in them when the command began."""
_DESCRIPTOR = click.IntRange(0, 2**31 - 1)
_NO_THREAD = "can't start new thread"
"""Python's words where the system starts none: there is no type of error for it."""
_AT_ITS_LIMIT = (
    "This machine starts no thread or program more for this user; end other programs, or raise "
    "the limit of processes, and try again."
)
_MAX_SECRET = 1024
_CONTROL = ("Cc",)
_UNSEEN = (*_CONTROL, "Cf", "Zl", "Zp")
"""Unicode's categories of what controls, formats or ends a line; a byte order mark is of these."""
_TYPED = "\u200c\u200d"
"""Of these what people type: in Persian and Hindi they say whether letters join."""
_BLANK = f"{_TYPED}\u034f\u115f\u1160\u2800\u3164\uffa0"
"""What nobody sees at an end, beside what str.isspace() tells of."""
_OUTPUTS = (1, 2)
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


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a click command; an error for a person is one sentence on standard error."""
    take_secrets()
    try:
        _take_every_letter()  # which writes what is there to be written
        check_text()
        status = command.main(prog_name=name, standalone_mode=False)
        finish_output()
    except CarnetError as error:
        complain(f"{name}: {error.sentence}")
        sys.exit(error.exit_status)
    except click.exceptions.NoArgsIsHelpError as error:
        with _heard_or_not():
            error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        message = " ".join(error.format_message().split()).rstrip(".?")
        complain(f"{name}: {message}; `{name} --help` tells more.")
        sys.exit(error.exit_code)
    except OSError as error:
        with suppress(OSError):
            finish_output()
        where = error.filename or "the output"
        reason = error.strerror or error
        advice = "make room" if error.errno == errno.ENOSPC else "correct its place and rights"
        complain(f"{name}: Cannot use {where}: {reason}; {advice}, and try again.")
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt) as interrupt:  # Abort is a RuntimeError, too
        complain(f"{name}: {'; '.join(['interrupted', *_said_by(interrupt)])}.")
        sys.exit(INTERRUPTED)
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        complain(f"{name}: {_AT_ITS_LIMIT}")
        sys.exit(1)
    if sys.stderr is not None:
        with _heard_or_not():
            sys.stderr.flush()
    sys.exit(status if isinstance(status, int) else 0)


def _take_every_letter() -> None:
    """Have no letter fail that the character set of a terminal lacks, or that is none in it.

    A label may have any; a command that has done its work must not fail as it says so. What
    is typed is kept as it is, to be refused by whoever asked: nothing takes its place.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def complain(sentence: str) -> None:
    """Say what is wrong on standard error, where anybody hears it."""
    with _heard_or_not():
        click.echo(sentence, err=True)


@contextmanager
def _heard_or_not() -> Iterator[None]:
    """Let an error output that takes nothing change nothing of the exit status."""
    try:
        yield
    except OSError:
        _discard(sys.stderr)


def _said_by(interrupt: BaseException) -> Sequence[str]:
    """Return what it could not prevent any more, where that was said; click wraps it."""
    cause = interrupt.__cause__
    return cause.args if isinstance(cause, KeyboardInterrupt) else ()


def take_secrets() -> None:
    """Take all secrets out of the environment, whether they are asked for or not.

    No child inherits one then, such as the agent that stays with a tunnel; and /proc, which
    shows for as long as a process runs what it began with, shows none of it.
    """
    _taken.clear()
    for variable in SECRET_VARIABLES:
        if variable in os.environ:
            _wipe(variable)
            _taken[variable] = os.environ.pop(variable)


def _wipe(variable: str) -> None:
    """Write over a variable's value where the system has it; Python has its own copy."""
    if os.name != "posix":
        return
    import ctypes  # noqa: PLC0415  few commands are given a secret so

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    if place := getenv(variable.encode("ascii")):
        ctypes.memset(place, 0, len(os.environb[variable.encode("ascii")]))


def has_secret(variable: str) -> bool:
    """Tell whether a variable gives a secret that was not read yet."""
    return variable in _taken or variable in os.environ


def check_text() -> None:
    """Raise UsageError unless all arguments of this command are text (UTF-8).

    Python hands on other bytes as surrogates, which no database and no message takes.
    """
    for argument in sys.argv[1:]:
        if not argument.isascii() and not _is_text(argument):
            raise UsageError(f"The argument {argument!a} is no text in UTF-8; write it anew.")


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def secret_options(name: str, what: str) -> Callable[[F], F]:
    """Add `--NAME-fd` and `--NAME-file`; a secret itself is never an argument."""

    def decorate(function: F) -> F:
        function = click.option(
            f"--{name}-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"Read {what} from this file, which only its owner may read.",
        )(function)
        return click.option(
            f"--{name}-fd", type=_DESCRIPTOR, help=f"Read {what} from this file descriptor."
        )(function)

    return decorate


def read_secret(
    what: str,
    *,
    option: str,
    fd: int | None,
    file: Path | None,
    variable: str,
    confirm: bool = False,
    as_it_is: bool = False,
) -> str:
    """Return a secret: from descriptor, file, environment variable, else a prompt.

    `option` is what its options begin with, as in `secret_options`.
    Raises UsageError where there is neither a source nor a terminal to ask at, and for what
    cannot be meant: a wrong PIN would cost a try. `as_it_is`, what is typed may have in it what
    nobody sees, for a token may have had that for its PIN. What an editor or a tool has left in a
    source is never meant.
    """
    secret = _read_secret(what, option, fd, file, variable, confirm=confirm)
    if secret.typed:
        _refuse_if_mistyped(secret.text, what, as_it_is=as_it_is)
    else:
        _refuse_if_unseen(secret.text, what, as_it_is=as_it_is)
    return secret.text


class _Secret(NamedTuple):
    text: str
    typed: bool


def _read_secret(
    what: str, option: str, fd: int | None, file: Path | None, variable: str, *, confirm: bool
) -> _Secret:
    inherited = os.environ.pop(variable, _taken.pop(variable, None))
    if fd is not None:
        return _Secret(_first_line(_read_descriptor(fd, what), what), typed=False)
    if file is not None:
        from carnet.files import read_private  # noqa: PLC0415  --help needs none

        return _Secret(_first_line(read_private(file, what, _MAX_SECRET), what), typed=False)
    if inherited is not None:
        return _Secret(_first_line(os.fsencode(inherited), what), typed=False)
    if not has_terminal():
        raise UsageError(
            f"There is no terminal to ask for {what} at; give it by --{option}-fd or "
            f"--{option}-file, or in {variable}."
        )
    return _Secret(_ask_secret(what, option=option, confirm=confirm), typed=True)


def _ask_secret(what: str, *, option: str, confirm: bool) -> str:
    """Ask for a secret; UsageError for one that is no text, of which the error shows nothing."""
    try:
        answer: str = click.prompt(
            what[0].upper() + what[1:], hide_input=True, confirmation_prompt=confirm, err=True
        )
        answer.encode()
    except UnicodeError:
        click.echo(err=True)  # the prompt's line is not ended
        raise UsageError(
            f"What was typed for {what} is no text in the terminal's character set, and was not "
            f"tried; type it anew, or give it by --{option}-fd or --{option}-file."
        ) from None
    return answer


def _refuse_if_mistyped(answer: str, what: str, *, as_it_is: bool) -> None:
    """Raise UsageError for what a key without a letter has left in what was typed."""
    if _has_any_of(_CONTROL if as_it_is else _UNSEEN, answer):
        raise UsageError(
            f"What was typed for {what} has a control character in it, and was not tried; type it "
            f"anew, by letters and digits alone."
        )


def _refuse_if_unseen(secret: str, what: str, *, as_it_is: bool) -> None:
    """Raise UsageError for what an editor or a tool has left in a source, and nobody sees."""
    if _has_any_of(_UNSEEN, secret):
        otherwise = ", or type it at a terminal if it has that in it" if as_it_is else ""
        raise UsageError(
            f"The source of {what} has a byte order mark, or another character that nobody sees, "
            f"in it, and was not tried; put {what} there alone, as plain text{otherwise}."
        )
    if any(end.isspace() or end in _BLANK for end in (secret[0], secret[-1])):
        raise UsageError(
            f"The source of {what} begins or ends with a blank, which nobody sees, and was not "
            f"tried; put {what} there without it, or type it at a terminal if it has one there."
        )


def _read_descriptor(fd: int, what: str) -> bytes:
    if fd in _OUTPUTS:
        raise UsageError(
            f"File descriptor {fd} is this command's own output; give {what} by another, such as 3."
        )
    try:
        with os.fdopen(fd, "rb") as file:
            line = file.readline(_MAX_SECRET + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read {what} from file descriptor {fd}; open it first.") from error
    if len(line) > _MAX_SECRET:
        raise UsageError(
            f"What comes from file descriptor {fd} is too long for {what}; give it alone."
        )
    return line


def _first_line(data: bytes, what: str) -> str:
    line = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise UsageError(f"The source of {what} is empty; put it there and try again.")
    try:
        secret = line.decode()
    except UnicodeDecodeError:
        raise UsageError(f"The source of {what} is not UTF-8 text; give the right one.") from None
    return secret


def _has_any_of(categories: tuple[str, ...], secret: str) -> bool:
    """Tell whether an editor, a tool or a key without a letter has left something in it."""
    return any(unicodedata.category(each) in categories for each in secret if each not in _TYPED)

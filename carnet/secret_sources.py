"""Where a command has its secrets from: a descriptor, a file, the environment, a prompt."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from carnet.console import has_terminal
from carnet.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

PIN_VARIABLE = "CARNET_PIN"
SO_PIN_VARIABLE = "CARNET_SO_PIN"
NEW_PIN_VARIABLE = "CARNET_NEW_PIN"
PASSPHRASE_VARIABLE = "CARNET_OFFICER_PASSPHRASE"  # noqa: S105 - names it, is none
SECRET_VARIABLES = (PIN_VARIABLE, SO_PIN_VARIABLE, NEW_PIN_VARIABLE, PASSPHRASE_VARIABLE)
_taken: dict[str, str] = {}
"""What was in them when the command began."""
_DESCRIPTOR = click.IntRange(0, 2**31 - 1)
_MAX_SECRET = 1024
_CONTROL = ("Cc",)
_UNSEEN = (*_CONTROL, "Cf", "Zl", "Zp")
"""Unicode's categories of what controls, formats or ends a line; a byte order mark is of these."""
_TYPED = "\u200c\u200d"
"""Of these what people type: in Persian and Hindi they say whether letters join."""
_BLANK = f"{_TYPED}\u034f\u115f\u1160\u2800\u3164\uffa0"
"""What nobody sees at an end, beside what str.isspace() tells of."""
_OUTPUTS = (1, 2)


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

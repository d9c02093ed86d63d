"""A command from its beginning to its exit status, and what is said of how it ended."""

import errno
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

import click

from carnet.console import complain, finish_output, heard_or_not
from carnet.entry import INTERRUPTED
from carnet.errors import CarnetError, UsageError
from carnet.secret_sources import take_secrets

_NO_THREAD = "can't start new thread"
"""Python's words where the system starts none: there is no type of error for it."""
_AT_ITS_LIMIT = (
    "This machine starts no thread or program more for this user; end other programs, or raise "
    "the limit of processes, and try again."
)


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
        with heard_or_not():
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
        with heard_or_not():
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


def _said_by(interrupt: BaseException) -> Sequence[str]:
    """Return what it could not prevent any more, where that was said; click wraps it."""
    cause = interrupt.__cause__
    return cause.args if isinstance(cause, KeyboardInterrupt) else ()


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

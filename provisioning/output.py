"""New files: never over an old one, and an error is one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from carnet.console import finish_output
from carnet.errors import UsageError
from carnet.files import private_directory, write_private


def check_absent(*paths: Path) -> None:
    """Raise UsageError if there is a file at one of these paths."""
    for path in paths:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists already; move it away or choose another place.")


def check_writable(path: Path) -> None:
    """Raise UsageError unless a new file can come to stand at this path."""
    check_absent(path)
    if not path.parent.is_dir():
        raise UsageError(f"There is no directory {path.parent}; make it first.")


def make_directory(path: Path) -> Path:
    """Make a private directory if there is none; UsageError where that cannot be."""
    try:
        return private_directory(path)
    except OSError as error:
        raise UsageError(
            f"Cannot make directory {path} ({error.strerror}); choose another place."
        ) from error


def write_new(path: Path, data: bytes) -> None:
    """Write a new private file, whole or not at all; UsageError where that cannot be."""
    check_absent(path)
    write_over(path, data)


def write_over(path: Path, data: bytes) -> None:
    """Write a private file whatever stands there, whole or not at all; raises UsageError."""
    try:
        write_private(path, data)
    except OSError as error:
        raise UsageError(
            f"Cannot write {path} ({error.strerror}); make room or choose another place."
        ) from error


@contextmanager
def done_all_the_same(what: str) -> Iterator[None]:
    """Say what is done where the report of it cannot be printed; UsageError then."""
    try:
        yield
        finish_output()
    except OSError as error:
        with suppress(OSError):
            finish_output()
        raise UsageError(
            f"The output takes nothing ({error.strerror}), but {what}; do not repeat the command."
        ) from error

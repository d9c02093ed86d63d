"""Reads what is stored beside a report."""

from pathlib import Path
from typing import TypeVar

import click
import msgspec

from bench.comparison import Row

BASELINE = "baseline.json"
T = TypeVar("T")


def read(path: Path, kind: type[T], default: T, name: str) -> T:
    """Return what the file has; the default where there is no such file.

    Raises click.ClickException, which says that it is none of that name, for another one.
    """
    if not path.exists():
        return default
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, OSError) as error:
        raise click.ClickException(
            f"{path} is no {name} ({error}); put the repository's back, or remove it."
        ) from error


def kept(directory: Path) -> list[Row]:
    """Return the rows that are kept beside a report; none where there is no such file."""
    return read(directory / BASELINE, list[Row], [], "baseline")

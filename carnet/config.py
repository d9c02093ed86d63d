"""Configuration: one TOML file an agent, unknown keys refused with their line."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from carnet.errors import UsageError

T = TypeVar("T")

_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tables of a configuration file have in common."""


def load_config(path: Path, type_: type[T]) -> T:
    """Return what a configuration file says; paths in it are relative to the file.

    Raises UsageError, with the line, for what is no TOML, unknown, missing or of
    another type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    try:
        return msgspec.convert(values, type_, strict=True, dec_hook=_relative_to(path))
    except msgspec.ValidationError as error:
        raise UsageError(_explain(path, text, str(error))) from error


def _relative_to(path: Path) -> Callable[[type[Any], Any], Any]:
    base = path.resolve().parent

    def decode(type_: type[Any], value: Any) -> Any:
        if type_ is Path and isinstance(value, str):
            return base / value
        raise ValueError(f"expected `{type_.__name__}`, got `{type(value).__name__}`")

    return decode


def _explain(path: Path, text: str, message: str) -> str:
    place = _PLACE.search(message)
    keys = place["path"].replace("[...]", ".*").split(".") if place and place["path"] else []
    what = message[: place.start()] if place else message
    unknown = _UNKNOWN.search(message)
    if unknown:
        keys.append(unknown["key"])
        what = f"unknown key `{unknown['key']}`"
    line = _line_of(text, keys)
    where = f"line {line}" if line else f"`{'.'.join(keys)}`" if keys else "the file"
    return f"{path}, {where}: {what[0].lower()}{what[1:]}; correct it and try again."


def _fits(path: list[str], wanted: list[str]) -> bool:
    """Tell whether a table's path is the one wanted; a star stands for any name."""
    return len(path) == len(wanted) and all(
        want in ("*", part) for part, want in zip(path, wanted, strict=True)
    )


def _line_of(text: str, keys: list[str]) -> int | None:
    """Return the line that sets a key: the last of the path, below its table's header."""
    if not keys:
        return None
    *tables, key = keys
    current: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header:
            current = [part.strip().strip("\"'") for part in header[1].split(".")]
            if _fits(current, keys):
                return number
        elif _fits(current, tables) and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return None

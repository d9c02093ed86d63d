"""Configuration: one TOML file an agent, unknown keys refused with their line."""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import msgspec
from msgspec import Meta

from carnet.errors import UsageError
from carnet.files import read_small

T = TypeVar("T")

_TEXT = "text, not an empty string"
NotEmpty = Annotated[str, Meta(pattern=r"\S", description=_TEXT)]
"""What means nothing where it is empty; whoever wants nothing leaves the line out."""

_MAX_CONFIGURATION = 1024 * 1024
"""Bytes."""


class LocalAddress(str):
    """The IP address that a service listens on; it looks nothing up for that."""

    __slots__ = ()

    @classmethod
    def from_setting(cls, text: str, _: Path) -> Self:
        """Read it; raises ValueError."""
        try:
            return cls(ip_address(text))
        except ValueError as error:
            raise ValueError(
                f"{error}, and a name is not looked up: write the address itself, 127.0.0.1 for"
                f" this machine alone, 0.0.0.0 or :: for all that reach it"
            ) from error


class SettingError(ValueError):
    """What a section finds wrong with one of its keys, once it has them all."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


@contextmanager
def about(key: str) -> Iterator[None]:
    """Have a ValueError be about that key."""
    try:
        yield
    except ValueError as error:
        raise SettingError(key, str(error)) from error


def check_once(key: str, values: Sequence[str]) -> None:
    """Raise SettingError where a key names something twice."""
    twice = next((each for each in values if values.count(each) > 1), None)
    if twice is not None:
        raise SettingError(key, f"`{key}` names {twice} twice")


_MOST_SAID = 300
"""Characters; a value that is repeated may be of any length."""
_PLACE = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`$")
_ANY = "[...]"
_STEP = re.compile(r"\[[0-9.]+\]|[^.\[]+")
_PATTERN = "Expected `str` matching regex"
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tables of a configuration file have in common."""


def load_config(path: Path, type_: type[T], *, init: str | None = None) -> T:
    """Return what a configuration file says; paths in it are relative to the file.

    `init` is the command that writes such a file, where there is one. Raises UsageError,
    with the line, for what is no TOML, unknown, missing or of another type.
    """
    try:
        text = read_small(path, _MAX_CONFIGURATION).decode()
    except OSError as error:
        otherwise = f", or write one with `{init}`" if init else ""
        raise UsageError(
            f"Cannot read {path}: {error.strerror}; correct the path{otherwise}."
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not TOML ({error}); save it as UTF-8.") from error
    return parse_config(path, text, type_)


def parse_config(path: Path, text: str, type_: type[T]) -> T:
    """Return what a configuration file of this text would say; raises as load_config() does."""
    import tomllib  # noqa: PLC0415  most travellers have no such file

    try:
        values = tomllib.loads(text)
    except ValueError as error:
        # A TOMLDecodeError, or a number of more digits than Python reads.
        raise UsageError(f"{path} is not TOML: {error}; correct it and try again.") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply; correct it and try again.") from error
    try:
        return msgspec.convert(values, type_, strict=True, dec_hook=_relative_to(path))
    except msgspec.ValidationError as error:
        raise UsageError(_explain(path, text, error, type_)) from error


def _relative_to(path: Path) -> Callable[[type[Any], Any], Any]:
    base = path.resolve().parent

    def decode(type_: type[Any], value: Any) -> Any:
        if value == "":
            raise ValueError(f"expected {_TEXT}")
        if type_ is Path and isinstance(value, str):
            if "\0" in value:
                raise ValueError("expected a path, got one with a null character")
            return base / value
        # A type of its own that is written as a string; it raises ValueError for others.
        if isinstance(value, str) and hasattr(type_, "from_setting"):
            return type_.from_setting(value, base)
        raise ValueError(f"expected `str`, got `{type(value).__name__}`")

    return decode


def _explain(path: Path, text: str, error: msgspec.ValidationError, type_: type[Any]) -> str:
    message, cause = str(error), error.__cause__
    place = _PLACE.search(message)
    keys = _STEP.findall(place["path"]) if place else []
    what = message[: place.start()] if place else message
    if what.startswith(_PATTERN):
        what = f"expected {_form(type_, what)}"
    unknown = _UNKNOWN.search(message)
    if unknown:
        keys.append(unknown["key"])
        what = f"unknown key `{unknown['key']}`"
    line = _line_of(text, [*keys, cause.key]) if isinstance(cause, SettingError) else None
    line = line or _line_of(text, keys)
    where = f"line {line}" if line else f"`{'.'.join(keys)}`" if keys else "the file"
    what = what.rstrip(".").replace("`object`", "a table")
    if not what[:2].isupper():  # as IKEv1 is
        what = what[0].lower() + what[1:]
    if len(what) > _MOST_SAID:
        what = f"{what[:_MOST_SAID]}…"
    return f"{path}, {where}: {what}; correct it and try again."


def _form(type_: type[Any], message: str) -> str:
    """Return the form of the string that a message is about, in the words of its type."""
    from msgspec.inspect import Metadata, StrType, type_info  # noqa: PLC0415  as tomlkit below

    described = {
        part.type.pattern: part.extra_json_schema
        for part in _parts(type_info(type_))
        if isinstance(part, Metadata) and isinstance(part.type, StrType)
    }
    return next(
        str(words["description"])
        for pattern, words in described.items()
        if words and message.endswith(f"regex {pattern!r}")
    )


def _parts(value: Any) -> Iterator[Any]:
    """Yield whatever a type is made of."""
    if isinstance(value, msgspec.Struct):
        yield value
        value = [getattr(value, name) for name in value.__struct_fields__]
    for part in value if isinstance(value, list | tuple) else ():
        yield from _parts(part)


def _line_of(text: str, keys: list[str]) -> int | None:
    """Return the line on which a value is set, or its table begins; None if it is nowhere.

    tomlkit writes a document as it was, so a mark in the value's place stands on its line.
    """
    import tomlkit  # noqa: PLC0415  only where a file is wrong
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415
    from tomlkit.items import Table  # noqa: PLC0415

    mark = secrets.token_hex(8)
    try:
        document = tomlkit.parse(text)
    except TOMLKitError:
        return None
    container, key = _find(document, keys)
    while container is not None:
        value = container[key]
        if isinstance(value, Table):
            # In a table's place a mark would move up to the keys that no table has.
            value.comment(mark)
        else:
            container[key] = mark
        lines = tomlkit.dumps(document).splitlines()
        line = next((number for number, each in enumerate(lines, 1) if mark in each), None)
        if line is not None and (isinstance(key, int) or key in text.splitlines()[line - 1]):
            return line
        # A table that no header names begins with its first key.
        container[key] = value
        container, key = (value, next(iter(value))) if isinstance(value, dict) else (None, "")
    return None


def _find(document: Any, keys: list[str]) -> tuple[Any, str | int]:
    """Return the container and the key of a value; a path step `[...]` is whichever fits."""
    if not keys:
        return None, ""
    first, *rest = keys
    if first == _ANY and not rest:
        wrong = (key for key, value in document.items() if not isinstance(value, dict))
        return document, next(wrong, next(iter(document)))
    if first == _ANY:
        found = (_find(each, rest) for each in document.values())
        return next((place for place in found if place[0] is not None), (None, ""))
    key: str | int = int(first[1:-1]) if first.startswith("[") else first
    try:
        value = document[key]
    except (KeyError, IndexError, TypeError):
        return None, ""
    return _find(value, rest) if rest else (document, key)

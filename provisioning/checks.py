"""What a person typed, checked before any key or token is touched."""

from typing import Any, TypeVar

import msgspec

from carnet.errors import UsageError

T = TypeVar("T")


def checked(value: T, type_: Any, otherwise: str) -> T:
    """Return a value that a field of the wire takes; else raise UsageError with the sentence."""
    try:
        msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(otherwise) from error
    return value

"""What a person typed, checked before any key or token is touched."""

from typing import Any, TypeVar

import msgspec

from carnet.errors import UsageError
from carnet.wire.keys import KEY_ID_LENGTH

T = TypeVar("T")


def checked(value: T, type_: Any, otherwise: str) -> T:
    """Return a value that a field of the wire takes; else raise UsageError with the sentence."""
    try:
        msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(otherwise) from error
    return value


def read_key_id(text: str) -> bytes:
    """Return a key ID that is written in hexadecimal; raises UsageError."""
    try:
        key_id = bytes.fromhex(text)
    except ValueError:
        key_id = b""
    if len(key_id) != KEY_ID_LENGTH:
        raise UsageError(f"{text!r} is no key ID; `carnet-provision list` shows those there are.")
    return key_id

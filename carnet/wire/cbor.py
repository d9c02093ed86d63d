"""CBOR in its one deterministic encoding (RFC 8949 section 4.2)."""

from types import UnionType
from typing import Any, NoReturn, TypeVar, cast

import cbor2
import msgspec

from carnet.wire.fault import Fault, WireError

MAX_MESSAGE = 8 * 1024
"""Bytes that a message from a stranger may have."""

MAX_DEPTH = 8

T = TypeVar("T", bound=msgspec.Struct)


def encode(value: object) -> bytes:
    """Return the deterministic encoding of plain values."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, limit: int = MAX_MESSAGE) -> object:
    """Return the value that these bytes, and no others, encode.

    Raises WireError: FRAMING for what is too long, is no CBOR or has a tag, CANONICAL for
    any encoding but the deterministic one, trailing bytes included.
    """
    if len(data) > limit:
        raise WireError(Fault.FRAMING, f"{len(data)} bytes where {limit} are allowed")
    try:
        value = cbor2.loads(
            data,
            max_depth=MAX_DEPTH,
            allow_duplicate_keys=False,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(Fault.FRAMING, "not CBOR") from error
    if not _is_encoding_of(data, value):
        raise WireError(Fault.CANONICAL, "not the deterministic encoding")
    return value


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a tag, where the protocol has none")


_LIBRARY_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100),
    *(256, 258, 260, 261, 1004, 43000, 55799),
)
"""Tags of which the library would make rich values, a compiled pattern among them."""
_NO_TAGS = dict.fromkeys(_LIBRARY_TAGS, _refuse_tag)


def _is_encoding_of(data: bytes, value: object) -> bool:
    try:
        return encode(value) == data
    except (cbor2.CBORError, ValueError, TypeError):
        return False


def pack(message: msgspec.Struct) -> bytes:
    """Return the deterministic encoding of a message."""
    return encode(msgspec.to_builtins(message, builtin_types=(bytes,)))


def unpack(data: bytes, type_: type[T], limit: int = MAX_MESSAGE) -> T:
    """Return the message of that type that these bytes encode.

    Raises WireError as decode() does, and with FIELD where a field is missing,
    unknown or out of its bounds.
    """
    return cast("T", _unpack(data, type_, limit))


def unpack_union(data: bytes, union: UnionType, limit: int = MAX_MESSAGE) -> msgspec.Struct:
    """Return whichever message of a tagged union these bytes encode; see unpack()."""
    return _unpack(data, union, limit)


def _unpack(data: bytes, type_: Any, limit: int) -> msgspec.Struct:
    value = decode(data, limit)
    try:
        message: msgspec.Struct = msgspec.convert(value, type_, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise WireError(Fault.FIELD, str(error)) from error
    if pack(message) != data:
        raise WireError(Fault.FIELD, "a field in another form than its own")
    return message

"""CBOR in its one deterministic encoding (RFC 8949 section 4.2)."""

from collections.abc import Callable
from types import UnionType
from typing import Any, NoReturn, TypeVar, cast

import cbor2
import msgspec

from carnet.wire.fault import Fault, WireError

MAX_MESSAGE = 8 * 1024
"""Bytes that a message from a stranger may have."""

MAX_DEPTH = 8

T = TypeVar("T", bound=msgspec.Struct)

_ONE_BYTE, _EIGHT_BYTES, _LEFT_OPEN = 24, 27, 31
"""What a head says where its argument follows in 1, 2, 4 or 8 bytes, or is left open."""
BYTES, TEXT, ARRAY, MAP = 2, 3, 4, 5
"""Major types (RFC 8949 section 3.1)."""
STRINGS = (BYTES, TEXT)
"""Those whose content follows the head."""


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


def check_items(data: bytes, most: int) -> None:
    """Raise WireError (FRAMING) for more items than a message of its kind has.

    Only heads are looked at (RFC 8949 section 3), and no more of them than `most`: for
    what may be so long that decoding it to the end would take much memory.
    """
    at = items = 0
    while at < len(data):
        items += 1
        if items > most:
            raise WireError(Fault.FRAMING, f"more than {most} items")
        at = _skip_item(data, at)


def _skip_item(data: bytes, at: int) -> int:
    """Return where the next head is: behind a string's content, else behind this head."""
    major, info = data[at] >> 5, data[at] & 31
    width = _width(info)
    argument = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else info
    return at + 1 + width + (argument if major in STRINGS else 0)


def _width(info: int) -> int:
    """Return how many bytes of argument follow the first byte of a head."""
    if info == _LEFT_OPEN:
        raise WireError(Fault.CANONICAL, "a length that is left open")
    if info > _EIGHT_BYTES:
        raise WireError(Fault.FRAMING, "not CBOR")
    return 1 << (info - _ONE_BYTE) if info >= _ONE_BYTE else 0


def encode_head(major: int, argument: int) -> bytes:
    """Return the shortest head of that major type and argument (RFC 8949 section 3)."""
    if argument < _ONE_BYTE:
        return bytes([major << 5 | argument])
    exponent = next(each for each in range(4) if argument < 1 << (8 << each))
    return bytes([major << 5 | _ONE_BYTE + exponent]) + argument.to_bytes(1 << exponent, "big")


def read_head(take: Callable[[int], bytes]) -> tuple[int, int, bytes]:
    """Take one head from a stream; return its major type, its argument, and its bytes.

    Raises WireError for one that is none or not the shortest.
    """
    first = take(1)
    major, info = first[0] >> 5, first[0] & 31
    width = _width(info)
    if not width:
        return major, info, first
    follows = take(width)
    argument = int.from_bytes(follows, "big")
    if encode_head(major, argument) != first + follows:
        raise WireError(Fault.CANONICAL, "not the deterministic encoding")
    return major, argument, first + follows


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

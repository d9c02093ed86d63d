"""Deterministic CBOR (RFC 8949 section 4.2.1), written from the RFC alone."""

from dataclasses import dataclass
from typing import Any

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP = range(6)
_SIMPLE = {False: b"\xf4", True: b"\xf5", None: b"\xf6"}


@dataclass(frozen=True)
class Raw:
    """An item that is encoded already, rightly or wrongly."""

    data: bytes


def head(major: int, argument: int) -> bytes:
    """Return an item's head with the shortest form of its argument."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    raise ValueError("CBOR has no heads that long")


def encode(value: Any) -> bytes:
    """Return the deterministic encoding of a value."""
    match value:
        case Raw(data):
            return data
        case bool() | None:
            return _SIMPLE[value]
        case int():
            return head(UNSIGNED, value) if value >= 0 else head(NEGATIVE, -1 - value)
        case bytes() | str():
            return _string(value)
        case list():
            return head(ARRAY, len(value)) + b"".join(map(encode, value))
        case dict():
            return head(MAP, len(value)) + b"".join(sorted_items(value))
    raise TypeError(f"no encoding for {type(value)}")


def _string(value: bytes | str) -> bytes:
    major, data = (BYTES, value) if isinstance(value, bytes) else (TEXT, value.encode())
    return head(major, len(data)) + data


def sorted_items(value: dict[Any, Any]) -> list[bytes]:
    """Return a map's items, encoded, in the bytewise order of their encoded keys."""
    pairs = sorted((encode(key), encode(item)) for key, item in value.items())
    return [key + item for key, item in pairs]

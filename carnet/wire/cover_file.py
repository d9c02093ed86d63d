"""The cover of a token that takes no data objects: a file, with its pairs listed in it.

An array of byte strings: the signed cover, then the signed batches whose pairs are on the
token. Both are the officer's word each by itself; the file adds nothing to them.
"""

from collections.abc import Sequence

from carnet.wire import cbor
from carnet.wire.fault import Fault, WireError

MAX_COVER_FILE = 1024 * 1024
MOST_BATCHES = 8
_MOST_ITEMS = 16
"""Few, but more than there may be, so that what is a little wrong is still named exactly."""


def pack_cover_file(cover: bytes, batches: Sequence[bytes]) -> bytes:
    """Return the file's bytes."""
    return cbor.encode([cover, *batches])


def unpack_cover_file(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the signed cover and the signed batches, nothing of them proved yet.

    Raises WireError.
    """
    if len(data) <= MAX_COVER_FILE:
        cbor.check_items(data, _MOST_ITEMS)
    parts = cbor.decode(data, MAX_COVER_FILE)
    if not isinstance(parts, list) or not 1 < len(parts) <= 1 + MOST_BATCHES:
        raise WireError(Fault.FRAMING, "not a cover with its batches")
    if not all(isinstance(part, bytes) for part in parts):
        raise WireError(Fault.FRAMING, "not a cover with its batches")
    return parts[0], tuple(parts[1:])

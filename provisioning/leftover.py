"""The files of a mint that was cut off: the next mint may write its own in their place."""

from collections.abc import Callable
from pathlib import Path

from carnet.files import read_small
from carnet.wire.cover_file import MAX_COVER_FILE, unpack_cover_file
from carnet.wire.documents import MAX_BATCH, Batch, read_unverified, verify_document
from carnet.wire.fault import WireError
from provisioning.officer import Officer
from provisioning.output import check_absent

MAX_FILE = MAX_BATCH + 1024
"""Bytes of a batch with its signature; what is longer is none."""


def may_be_left(path: Path) -> bool:
    """Tell whether a file looks like a batch; whose and of what, make_way() finds out."""
    try:
        read_unverified(read_small(path, MAX_FILE), Batch)
    except (OSError, WireError):
        return False
    return True


def check_way(path: Path, officer: Officer, prefixes: frozenset[str]) -> None:
    """Raise UsageError where make_way() would, and remove nothing."""
    if not _is_left(path, officer, prefixes):
        check_absent(path)


def make_way(path: Path, officer: Officer, prefixes: frozenset[str]) -> None:
    """Remove the batch of a mint that was cut off, whose pairs are destroyed by now.

    Also one that was written and not yet put in its place (carnet.files). `prefixes` are
    what the labels of such pairs begin with. Raises UsageError if anything else is at
    this path.
    """
    for left in _places(path):
        if _is_left(left, officer, prefixes):
            left.unlink()
    check_absent(path)


def make_way_for_cover(path: Path, officer: Officer, prefixes: frozenset[str]) -> None:
    """Do the same with the cover file of an adoption that was cut off."""
    for left in _places(path):
        if _is_left_cover(left, officer, prefixes):
            left.unlink()
    check_absent(path)


def sweep_unplaced(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Remove what was written for this path and not yet put in its place."""
    for left in _places(path)[1:]:
        if is_ours(left):
            left.unlink()


def cover_may_be_left(path: Path) -> bool:
    """Tell whether a file looks like a cover file; whose, make_way_for_cover() finds out."""
    try:
        unpack_cover_file(read_small(path, MAX_COVER_FILE))
    except (OSError, WireError):
        return False
    return True


def _places(path: Path) -> list[Path]:
    return [path, *path.parent.glob(f".{path.name}.*")]


def _is_left_cover(path: Path, officer: Officer, prefixes: frozenset[str]) -> bool:
    try:
        _, batches = unpack_cover_file(read_small(path, MAX_COVER_FILE))
    except (OSError, WireError):
        return False
    return all(_is_of(signed, officer, prefixes) for signed in batches)


def _is_left(path: Path, officer: Officer, prefixes: frozenset[str]) -> bool:
    try:
        return _is_of(read_small(path, MAX_FILE), officer, prefixes)
    except OSError:
        return False


def _is_of(signed: bytes, officer: Officer, prefixes: frozenset[str]) -> bool:
    try:
        batch = verify_document(signed, Batch, officer.verification_key)
    except WireError:
        return False
    return all(pair.label.startswith(tuple(prefixes)) for pair in batch.pairs)

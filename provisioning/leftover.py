"""The batch file of a mint that was cut off: the next mint may write its own in its place."""

from pathlib import Path

from carnet.files import read_small
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


def make_way(path: Path, officer: Officer, prefixes: frozenset[str]) -> None:
    """Remove the batch of a mint that was cut off, whose pairs are destroyed by now.

    Also one that was written and not yet put in its place (carnet.files). `prefixes` are
    what the labels of such pairs begin with. Raises UsageError if anything else is at
    this path.
    """
    for left in (path, *path.parent.glob(f".{path.name}.*")):
        if _is_left(left, officer, prefixes):
            left.unlink()
    check_absent(path)


def _is_left(path: Path, officer: Officer, prefixes: frozenset[str]) -> bool:
    try:
        batch = verify_document(read_small(path, MAX_FILE), Batch, officer.verification_key)
    except (OSError, WireError):
        return False
    return all(pair.label.startswith(tuple(prefixes)) for pair in batch.pairs)

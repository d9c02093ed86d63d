"""The batch file of a mint that was cut off: the next mint may write its own in its place."""

from pathlib import Path

from carnet.wire.documents import Batch, read_unverified, verify_document
from carnet.wire.fault import WireError
from provisioning.officer import Officer
from provisioning.output import check_absent


def may_be_left(path: Path) -> bool:
    """Tell whether a file looks like a batch; whose and of what, make_way() finds out."""
    try:
        read_unverified(path.read_bytes(), Batch)
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
        batch = verify_document(path.read_bytes(), Batch, officer.verification_key)
    except (OSError, WireError):
        return False
    return all(pair.label.startswith(tuple(prefixes)) for pair in batch.pairs)

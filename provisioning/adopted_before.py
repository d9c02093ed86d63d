"""Whether keys that are adopted were adopted before, as far as the station's files tell."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from carnet.files import read_small
from carnet.wire.cover_file import MAX_COVER_FILE, unpack_cover_file
from carnet.wire.documents import Batch, verify_document
from carnet.wire.fault import WireError
from provisioning.officer import Officer


def adopted_before(cover: Path, keys: Iterable[bytes], officer: Officer) -> dict[str, int]:
    """Count which of these public keys cover files beside this one list, by the files' names.

    Those that end as this one does, and that this officer signed.
    """
    wanted = frozenset(keys)
    beside = cover.parent.glob(f"*{cover.suffix}") if cover.suffix else ()
    counts = {
        path.name: len(wanted & _listed(path, officer))
        for path in sorted(beside)
        if path != cover and path.is_file()
    }
    return {name: count for name, count in counts.items() if count}


def _listed(path: Path, officer: Officer) -> set[bytes]:
    with suppress(OSError, WireError):
        _, batches = unpack_cover_file(read_small(path, MAX_COVER_FILE))
        read = (verify_document(each, Batch, officer.verification_key) for each in batches)
        return {pair.public_key for batch in read for pair in batch.pairs}
    return set()

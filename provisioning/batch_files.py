"""The batch files of a mint: removed again where it fails, and not where it cannot be told."""

from contextlib import suppress
from pathlib import Path

from carnet.files import read_small
from provisioning.output import write_new


class BatchFiles:
    """What a mint has written, from before it stands there until the mint is over."""

    def __init__(self) -> None:
        self._written: list[tuple[Path, bytes]] = []
        self.final = False
        """Set before the journal closes: from then on they go only after their pairs."""

    def write(self, path: Path, signed: bytes) -> None:
        """Write a batch; raises UsageError where that cannot be."""
        # Noted first: an interrupt, or a disk that fails to sync, may come when it is in place.
        self._written.append((path, signed))
        write_new(path, signed)

    def remove(self) -> None:
        """Remove what was written, and nothing that another program put in its place."""
        for path, signed in self._written:
            with suppress(OSError):
                if read_small(path, len(signed)) == signed:
                    path.unlink()

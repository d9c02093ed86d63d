"""The files of a mint: removed again where it fails, and not where it cannot be told."""

from contextlib import suppress
from pathlib import Path

from carnet.files import read_small, write_private
from provisioning.output import write_new, write_over


class BatchFiles:
    """What a mint has written, from before it stands there until the mint is over."""

    def __init__(self) -> None:
        self._written: list[tuple[Path, bytes, bytes | None]] = []
        self.final = False
        """Set before the journal closes: from then on they go only after their pairs."""

    def write(self, path: Path, signed: bytes) -> None:
        """Write a new file; raises UsageError where that cannot be."""
        # Noted first: an interrupt, or a disk that fails to sync, may come when it is in place.
        self._written.append((path, signed, None))
        write_new(path, signed)

    def replace(self, path: Path, signed: bytes, older: bytes | None) -> None:
        """Write a file in the place of what stands there; raises UsageError."""
        self._written.append((path, signed, older))
        write_over(path, signed)

    def remove(self) -> None:
        """Remove what was written, and nothing that another program put in its place.

        What was replaced is put back.
        """
        for path, signed, older in self._written:
            with suppress(OSError):
                if read_small(path, len(signed)) != signed:
                    continue
                if older is None:
                    path.unlink()
                else:
                    write_private(path, older)

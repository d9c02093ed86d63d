"""What `KEEP=1 make demo` keeps: logs and the capture."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from carnet.files import private_directory, write_private
from lab.office import files_below


def keep_logs(world: Path, destination: Path) -> None:
    """Copy them out of the world's directory before it goes; they are for their owner alone.

    Of two demonstrations that end at once the last one's are kept, and whole.
    """
    with _alone_in(destination.parent):
        shutil.rmtree(destination, ignore_errors=True)
        private_directory(destination)
        for path in files_below(world):
            if path.suffix in {".log", ".pcap"}:
                write_private(destination / f"{path.parent.name}-{path.name}", path.read_bytes())


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Wait for whoever else is in here."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

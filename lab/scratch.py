"""A directory that goes with its maker, however that ends."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.errors import LabError

_JANITOR = 'cat; for attempt in 1 2 3 4 5; do rm -rf -- "$1" && exit; sleep 0.2; done; exit 1'
"""Waits until its maker ends, however that ends, and removes the directory."""


class Scratch:
    """A private directory, removed by close() or when this process ends."""

    def __init__(self, prefix: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            self._janitor = subprocess.Popen(
                ["sh", "-c", _JANITOR, "janitor", str(self.directory)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def close(self) -> None:
        """Return when the directory is gone; raises LabError if it cannot be removed."""
        if self._janitor.stdin:
            self._janitor.stdin.close()
        # However busy the disk is: it ends by itself.
        if self._janitor.wait():
            raise LabError(f"The lab's directory {self.directory} cannot be removed.")

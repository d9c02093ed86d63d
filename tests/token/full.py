"""A token of SoftHSM2 on a disk of its own, which is small."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class SmallDisk:
    """The disk that a token is on."""

    filler: Path

    def fill(self) -> None:
        """Leave not a byte."""
        with suppress(OSError), self.filler.open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        """Take away what fill() wrote."""
        self.filler.unlink()


@contextmanager
def small_disk(token: Path, size: str = "160k") -> Iterator[SmallDisk]:
    """Have the token of this directory on such a disk, where it stays, until the end."""
    files = {path.name: path.read_bytes() for path in token.iterdir()}
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(token)]
    subprocess.run(mount, check=True)
    try:
        for name, content in files.items():
            (token / name).write_bytes(content)
        yield SmallDisk(token / "filler")
    finally:
        subprocess.run(["umount", str(token)], check=True)

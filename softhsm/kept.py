"""A copy of what SoftHSM2 would lose for ever in a kill: the file of the token itself.

At each login SoftHSM2 truncates `token.object` and writes it anew, in place and without
a sync. It holds the key that all objects are encrypted with, itself under the PINs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from carnet.errors import TokenError
from carnet.files import write_private
from softhsm.damage import ABOUT_THE_TOKEN, ends_too_early
from softhsm.places import configuration_file, token_directories

_COPY = "token.kept"
"""Of no name that SoftHSM2 reads."""
_GENERATION = 8
"""Bytes at the beginning that count the writings, and matter to nobody else."""
_kept: set[Path] = set()


def keep_tokens(*, again: bool = False) -> None:
    """Have a copy of each token's file; put it back where SoftHSM2 has left none to read.

    Once a process, before SoftHSM2 is loaded: to close such a file lets go of the locks
    that SoftHSM2 has on it in this process. `again`: after a PIN was changed, when no
    session is open, so that the copy does not open under the old one. Raises TokenError
    for a file that is damaged and has no copy.
    """
    if os.name != "posix":
        return
    configuration = configuration_file().absolute()
    if not configuration.is_file() or (configuration in _kept and not again):
        return
    for directory in token_directories():
        if (directory / ABOUT_THE_TOKEN).is_file():
            _keep(directory)
    _kept.add(configuration)


def _keep(directory: Path) -> None:
    path, copy = directory / ABOUT_THE_TOKEN, directory / _COPY
    # Where this user may not write, or the disk is full, the token is used without.
    with suppress(OSError), _locked(path) as file:
        data = file.read()
        kept = copy.read_bytes() if copy.exists() else b""
        if not ends_too_early(data):
            if data[_GENERATION:] != kept[_GENERATION:]:
                write_private(copy, data)
        elif kept and not ends_too_early(kept):
            _put_back(file, kept)
        elif len(list(directory.glob("*.object"))) > 1:
            raise TokenError(
                f"{path} is empty or cut short, and without it nothing on that token can be "
                f"used; restore it from a backup, or have its pairs revoked and move its "
                f"directory away."
            )


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open a file under the lock that SoftHSM2 takes to write it: nobody is at it then."""
    import fcntl  # noqa: PLC0415  Windows has none, and keeps no copies

    with path.open("r+b", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield file  # closing it gives the lock free


def _put_back(file: BinaryIO, kept: bytes) -> None:
    """Write in place, as SoftHSM2 does: a kill here leaves the copy to begin with again."""
    os.ftruncate(file.fileno(), 0)
    os.pwrite(file.fileno(), kept, 0)
    os.fsync(file.fileno())

"""A copy of what SoftHSM2 would lose for ever in a kill: the file of the token itself.

At each login SoftHSM2 truncates `token.object` and writes it anew, in place and without
a sync. It holds the key that all objects are encrypted with, itself under the PINs.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from carnet.errors import TokenError
from carnet.files import write_private
from softhsm.damage import ABOUT_THE_TOKEN, ends_the_process, ends_too_early, serial_in
from softhsm.places import configuration_file, token_directories

_COPY = "token.kept"
"""Of no name that SoftHSM2 reads."""
_GENERATION = 8
"""Bytes at the beginning that count the writings, and matter to nobody else."""
_kept: set[Path] = set()
_lost: list[str] = []


def keep_tokens(*, again: bool = False) -> None:
    """Have a copy of each token's file; put it back where SoftHSM2 has left none to read.

    Once a process, before SoftHSM2 is loaded: to close such a file lets go of the locks
    that SoftHSM2 has on it in this process. `again`, when no session is open: after the
    token was initialised, or where it is gone.

    A token whose file is damaged and has no copy is named on standard error where there
    are others, which SoftHSM2 shows without it. Raises TokenError where there are none,
    and for a file, or two of one token, that SoftHSM2 would end this process at.
    """
    if os.name != "posix":
        return
    configuration = configuration_file().absolute()
    if not configuration.is_file() or (configuration in _kept and not again):
        return
    tokens = [place for place in token_directories() if (place / ABOUT_THE_TOKEN).is_file()]
    lost = [_sentence(place) for place in tokens if not _keep(place)]
    for directory in tokens:
        _check_objects(directory)
    _check_serials(tokens)
    if lost and len(lost) == len(tokens):
        raise TokenError(lost[0])
    _tell(lost)
    _kept.add(configuration)


@contextmanager
def kept_anew() -> Iterator[None]:
    """Have the copies written anew after this, in which a PIN changes.

    By a process that outlives this one: no copy is to open under the PIN that was because
    this one was killed in between. Here no session must be open at the end.
    """
    configuration = configuration_file().absolute()
    if os.name != "posix" or not configuration.is_file():
        yield
        return
    # It waits for the end of its input: that comes with the end of this process, too.
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "softhsm.renewal"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ):
        yield


def lost_tokens() -> list[str]:
    """Return a sentence for each token that keep_tokens() found damaged and without a copy."""
    return list(_lost)


def _tell(lost: list[str]) -> None:
    for sentence in lost:
        if sentence not in _lost:
            _lost.append(sentence)
            with suppress(OSError):
                click.echo(f"carnet: {sentence}", err=True)


def _keep(directory: Path) -> bool:
    """Copy the token's file, or put the copy back; False where there is nothing whole."""
    path, copy = directory / ABOUT_THE_TOKEN, directory / _COPY
    # Where this user may not write, or the disk is full, the token is used without.
    with suppress(OSError), _locked(path) as file:
        data = file.read()
        kept = copy.read_bytes() if copy.exists() else b""
        if not ends_too_early(data):
            if data[_GENERATION:] != kept[_GENERATION:]:
                _renew(copy, data)
        elif kept and not ends_too_early(kept):
            _put_back(file, kept)
        else:
            # One without objects has nothing to lose.
            return len(list(directory.glob("*.object"))) == 1
    return True


def _renew(copy: Path, data: bytes) -> None:
    try:
        write_private(copy, data)
    except OSError:
        # None at all rather than one that may open under a PIN that was.
        copy.unlink(missing_ok=True)


def _sentence(directory: Path) -> str:
    return (
        f"{directory / ABOUT_THE_TOKEN} is empty or cut short, and without it nothing on that "
        f"token can be used; restore it from a backup, or have its pairs revoked and move its "
        f"directory away."
    )


def _check_objects(directory: Path) -> None:
    for path in directory.glob("*.object"):
        with suppress(OSError):
            if ends_the_process(path.read_bytes()):
                raise TokenError(
                    f"{path} is garbled, and SoftHSM2 ends every program that uses any token in "
                    f"{directory.parent}; restore it from a backup, or move it away"
                    f"{' with its directory' if path.name == ABOUT_THE_TOKEN else ''}."
                )


def _check_serials(tokens: list[Path]) -> None:
    """Raise TokenError where two tokens have one serial number: SoftHSM2 makes slots of it."""
    known: dict[bytes, Path] = {}
    for directory in sorted(tokens):
        with suppress(OSError):
            serial = serial_in((directory / ABOUT_THE_TOKEN).read_bytes())
            if serial and serial in known:
                raise TokenError(
                    f"{known[serial]} and {directory} are one token, of serial number "
                    f"{serial.decode(errors='replace')}, and SoftHSM2 ends every program that "
                    f"finds both; move the copy away."
                )
            known[serial] = directory


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

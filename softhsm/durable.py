"""SoftHSM2 syncs nothing that it stores: who relies on it after a power cut asks for it here."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from carnet.errors import TokenError
from softhsm.places import directories_of

_LITTLE = 16 * 1024
"""Bytes, of which SoftHSM2 needs some for any object."""


@contextmanager
def saying_when_full(serial: str) -> Iterator[None]:
    """Say that the disk is full where SoftHSM2 fails for that.

    It says that it has stored what it could not write, and fails at something later.
    """
    try:
        yield
    except TokenError as error:
        for directory in directories_of(serial):
            disk = os.statvfs(directory)
            if disk.f_bavail * disk.f_frsize < _LITTLE:
                raise TokenError(
                    f"The disk that SoftHSM2 keeps this token on is full; make room in "
                    f"{directory.parent}, and repeat the command."
                ) from error
        raise


def sync_token(serial: str) -> None:
    """Return when all that this token has stored is on the disk.

    A token that is not SoftHSM2's keeps what it stores by itself. Raises TokenError if
    the disk fails.
    """
    for directory in directories_of(serial):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                reason = os.strerror(ctypes.get_errno())
                raise TokenError(f"The disk does not keep the token ({reason}); check the disk.")
        finally:
            os.close(descriptor)

"""SoftHSM2 syncs nothing that it stores: who relies on it after a power cut asks for it here."""

import ctypes
import os

from carnet.errors import TokenError
from softhsm.places import directories_of


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

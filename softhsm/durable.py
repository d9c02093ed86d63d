"""SoftHSM2 syncs nothing that it stores: who relies on it after a power cut asks for it here."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from carnet.errors import TokenError
from carnet.token.session import TokenSession
from softhsm.places import directories_of
from softhsm.syncing import sync_files, sync_objects

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
            if _is_full(directory):
                raise TokenError(
                    f"The disk that SoftHSM2 keeps this token on is full; make room in "
                    f"{directory.parent}, and repeat the command or start the service again."
                ) from error
        raise


def _is_full(directory: Path) -> bool:
    try:
        disk = os.statvfs(directory)
    except OSError:  # it was pulled
        return False
    return disk.f_bavail * disk.f_frsize < _LITTLE


@contextmanager
def durably(session: TokenSession) -> Iterator[None]:
    """Have on the disk what the block stores; raises TokenError, also that says it is full."""
    with saying_when_full(session.identity.serial):
        yield
        sync_token(session)


def sync_token(session: TokenSession) -> None:
    """Return when all that this token has stored is on the disk.

    A token that is not SoftHSM2's keeps what it stores by itself. Raises TokenError if
    the disk fails.
    """
    _sync(session, sync_files)


def sync_left(session: TokenSession) -> None:
    """Do the same with what somebody stored lately, and may not have lived to sync."""
    _sync(session, sync_objects)


def _sync(session: TokenSession, sync: Callable[[Path], None]) -> None:
    for directory in directories_of(session.identity.serial):
        try:
            sync(directory)
        except OSError as error:
            raise TokenError(
                f"The disk does not keep the token ({error.strerror}); check the disk."
            ) from error

"""Private files: 0600 in directories 0700, written whole or not at all."""

import errno
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from carnet import crash
from carnet.errors import UsageError

MAX_SMALL = 64 * 1024
"""Bytes of a key, a certificate, a signed head; what is longer is none."""
_OTHERS = 0o077
_OTHERS_WRITE = 0o022
"""Where an access list lets somebody else write, the group's bit says so (acl(5))."""
_BEGINNING_SECONDS = 60.0
"""By then a temporary file is locked, or nobody writes it."""
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK = 512
"""Bytes, in which stat(2) counts what a file has on its file system."""
_READING = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _READING |= getattr(os, _flag, 0)
"""A pipe that nobody writes into would keep open() waiting; each system has some of these."""


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner enters, if there is none; return it.

    Missing parents are made the same way.
    """
    if not path.parent.exists():
        private_directory(path.parent)
    if not path.exists():
        path.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent)
    return path


def private_file(path: Path) -> Path:
    """Make an empty file that only its owner reads, if there is none; return it."""
    if not path.exists():
        path.touch(mode=0o600, exist_ok=True)
        sync_directory(path.parent)
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600: synced, then put in its place in one step."""
    try:
        _write(path, data)
    except OSError as error:
        error.filename = str(path)
        raise
    sync_directory(path.parent)


def rewrite_private(path: Path, data: bytes) -> None:
    """Write a file of write_private()'s anew; in its own place where there is no room for two.

    For JSON alone: what is left of a longer one is blank. Who reads it just then may see half.
    """
    try:
        write_private(path, data)
    except OSError as error:
        if error.errno not in _NO_ROOM or not _overwrite(path, data):
            raise


def _overwrite(path: Path, data: bytes) -> bool:
    """Write over a file, by one call, within what it has room for; tell whether that could be."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            size = os.fstat(descriptor).st_size
            room = max(size, os.fstat(descriptor).st_blocks * _BLOCK)
            whole = data.ljust(size)
            return len(whole) <= room and os.write(descriptor, whole) == len(whole)
        finally:
            os.close(descriptor)
    return False


def _write(path: Path, data: bytes) -> None:
    _remove_leftovers(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with _in_use(descriptor):
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            crash.reach(f"files.synced {path.name.partition('-')[0]}")
            Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _in_use(descriptor: int) -> Iterator[None]:
    """Hold a lock on a temporary file, also once it is closed; it goes with this process."""
    locked = os.dup(descriptor)
    try:
        _lock(locked)
        yield
    finally:
        os.close(locked)


def _lock(descriptor: int) -> bool:
    """Take the lock if nobody has it; False too where there are none, as on Windows."""
    with suppress(ImportError, OSError):
        import fcntl  # noqa: PLC0415  likewise

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _remove_leftovers(path: Path) -> None:
    """Remove what writings of this file have left that were killed: nobody holds their locks."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, _READING | getattr(os, "O_NOFOLLOW", 0))
        try:
            now = os.fstat(descriptor)
            begun = now.st_size > 0 or time.time() - now.st_mtime > _BEGINNING_SECONDS
            if stat.S_ISREG(now.st_mode) and begun and _lock(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)


def read_small(path: Path, limit: int = MAX_SMALL, *, again: bool = False) -> bytes:
    """Return the content of a file that somebody named; OSError if it has more than `limit` bytes.

    It may be a device or a pipe, which has no size and need not end; but not where it will
    be read `again`, which has to be a regular file.
    """
    with open_regular(path) if again else path.open("rb") as file:
        return _at_most(limit, file, path)


def _at_most(limit: int, file: BinaryIO | FileIO, path: Path) -> bytes:
    data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def read_guarded(path: Path, limit: int = MAX_SMALL) -> bytes:
    """Return the content of a file that only root or this user can have put there.

    OSError where somebody else can: where it, or the directory that it is in, is a link, is
    another's, or is one that others write to. So too where it is no regular file, or has more
    than `limit` bytes. How that directory is reached is not looked at.
    """
    directory = _open_guarded_directory(path.parent)
    try:
        descriptor = os.open(path.name, _READING | os.O_NOFOLLOW, dir_fd=directory)
    finally:
        os.close(directory)
    with FileIO(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _is_guarded(status):
            raise OSError(errno.EPERM, "it is no regular file, or not ours alone", str(path))
        return _at_most(limit, file, path)


def is_guarded(directory: Path) -> bool:
    """Tell whether read_guarded() reads what is in that directory."""
    with suppress(OSError):
        os.close(_open_guarded_directory(directory))
        return True
    return False


def _open_guarded_directory(directory: Path) -> int:
    descriptor = os.open(directory, _READING | os.O_DIRECTORY | os.O_NOFOLLOW)
    if not _is_guarded(os.fstat(descriptor)):
        os.close(descriptor)
        raise OSError(errno.EPERM, "others can write to it", str(directory))
    return descriptor


def _is_guarded(status: os.stat_result) -> bool:
    """Tell whether nobody but root and this user can write to it, or have it written to."""
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & _OTHERS_WRITE


def open_regular(path: Path) -> FileIO:
    """Open a file for reading, unbuffered; OSError where it is none, but a pipe or a device.

    Those need not begin, need not end, and cannot be read twice.
    """
    descriptor = os.open(path, _READING)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return FileIO(descriptor, "rb")


def read_private(path: Path, what: str, limit: int = MAX_SMALL) -> bytes:
    """Return the content of a secret file.

    Raises UsageError if there is none, if it has more than `limit` bytes, or if others
    than its owner can read it.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & _OTHERS:
            raise UsageError(f"Others can read {what} in {path}; run `chmod 600 {path}`.")
        return read_small(path, limit)
    except OSError as error:
        raise UsageError(
            f"Cannot read {what} in {path}: {error.strerror}; correct the path."
        ) from error


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

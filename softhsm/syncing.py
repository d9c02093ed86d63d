"""Having on the disk what lies there of a token of SoftHSM2, and waiting for nothing else.

SoftHSM2 writes its files in place, one for each object, and counts in one more, `generation`,
that it did. So a token is on the disk when each of these is that was changed, and their names.
The whole disk would have to wait for what all others write there.
"""

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

from carnet.files import sync_directory

_State = tuple[int, int]
"""A file's inode, and when that was changed, in nanoseconds."""

_OWN = "token.object"
"""The token's own file, which SoftHSM2 writes at each login, mostly with nothing new in it."""
_NAMES = "."
"""The directory itself, among its files."""
_LATELY = 3600 * 10**9
"""Nanoseconds before the newest change: what is older the system has long written by itself."""
_TICK = 10**8
"""Nanoseconds, within which two changes of a file may seem to be of the same moment."""
_FEW = 100
"""Files that are synced one after the other; more than these with all of the disk."""

_synced: dict[Path, dict[str, _State]] = {}
"""What this process has synced, by the token's directory."""


def sync_files(directory: Path) -> None:
    """Return when all files of a token are on the disk, and their names; raises OSError."""
    _sync(directory, _due(directory))


def sync_objects(directory: Path) -> None:
    """Do the same where any object was changed lately, by whomever; else nothing."""
    due = _due(directory)
    if due.keys() - {_OWN}:
        _sync(directory, due)


def _due(directory: Path) -> dict[str, _State]:
    """Return what may not be on the disk yet, the directory included."""
    synced = _synced.setdefault(directory, {})
    states = _states(directory)
    # By the files themselves, for the clock may have leapt ahead since; or back.
    newest = max(changed for _, changed in states.values())
    lately = min(newest, time.time_ns()) - _LATELY
    files = {name: state for name, state in states.items() if state[1] > lately}
    for name in synced.keys() - files.keys():
        synced.pop(name, None)
    return {name: state for name, state in files.items() if synced.get(name) != state}


def _states(directory: Path) -> dict[str, _State]:
    """Return the state of each file that is to have content, and of the directory."""
    states = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".object") or entry.name == "generation":
                found = _state(entry.path)
                if found:
                    states[entry.name] = found
    return states | {_NAMES: _state(directory) or (0, 0)}


def _state(path: str | Path) -> _State | None:
    """Return it; None of a file that is gone, as another process may destroy one."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _sync(directory: Path, due: dict[str, _State]) -> None:
    looked_at = time.time_ns()
    if len(due) > _FEW:
        _at(directory, _sync_disk)
    else:
        # SoftHSM2 fails to remove an object whose lock, a file that stays empty, is not there.
        if _NAMES in due:
            sync_directory(directory)
        try:
            for name in due.keys() - {_NAMES}:
                _at(directory / name, os.fsync)
        except PermissionError:  # another user's, as root's who ran a command there
            _at(directory, _sync_disk)
    # What was changed just then may be changed again without one's seeing it.
    _synced[directory].update(
        (name, state) for name, state in due.items() if looked_at - state[1] > _TICK
    )


def _at(path: Path, sync: Callable[[int], None]) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:  # it was destroyed meanwhile
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_disk(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

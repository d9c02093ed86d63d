"""Where the Client keeps what must not reach a disk: a directory in memory."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

_MEMORY = frozenset({"tmpfs", "ramfs"})
_MOUNTS = Path("/proc/self/mounts")


def memory_directory() -> Path | None:
    """Return a directory of this user's own in a file system that is memory, or None.

    It is made, with mode 0700, where there is none. Somebody else's directory in
    its place is passed over. Windows has no such file system.
    """
    if not hasattr(os, "getuid"):
        return None
    for parent, name in _candidates():
        if parent.is_dir() and _is_memory(parent):
            directory = parent / name
            try:
                directory.mkdir(mode=0o700, exist_ok=True)
            except OSError:
                continue
            if _is_ours(directory):
                return directory
    return None


def _candidates() -> Iterator[tuple[Path, str]]:
    named = os.environ.get("XDG_RUNTIME_DIR")
    if named:
        yield Path(named), "carnet"
    yield Path("/run/user") / str(os.getuid()), "carnet"
    yield Path("/run"), "carnet-client"
    yield Path("/dev/shm"), f"carnet-{os.getuid()}"  # noqa: S108  checked to be ours below


def _is_memory(path: Path) -> bool:
    """Tell whether the mount that holds a path is memory; False where it cannot be known."""
    best, kind = "", ""
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    resolved = str(path.resolve())
    for line in lines:
        _, mount, type_, *_ = line.split(" ")
        inside = mount in {"/", resolved} or resolved.startswith(mount + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, type_
    return kind in _MEMORY


def _is_ours(directory: Path) -> bool:
    status = directory.lstat()
    private = stat.S_IMODE(status.st_mode) & 0o077 == 0
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and private

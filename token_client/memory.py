"""Where the Client keeps what must not reach a disk: a directory in memory."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

RECORD = "session-"
"""How the name of a tunnel's record begins."""
_MEMORY = frozenset({"tmpfs", "ramfs"})
_MOUNTS = Path("/proc/self/mounts")


def memory_directory() -> Path | None:
    """Return a directory of this user's own in a file system that is memory, or None.

    It is made, with mode 0700, where there is none. Somebody else's directory in
    its place is passed over. Windows has no such file system.
    """
    if not hasattr(os, "getuid"):
        return None
    places = [parent / name for parent, name in _candidates() if _can_hold(parent)]
    # The sort is stable: of those that are alike, the first.
    return next(filter(_is_made, sorted(places, key=_emptiness)), None)


def _can_hold(parent: Path) -> bool:
    return parent.is_dir() and _is_memory(parent)


def _emptiness(directory: Path) -> int:
    """Return what to look at first: records are found where they are.

    Which candidates there are depends on whether the user has logged in.
    """
    if not (directory.is_dir() and _is_ours(directory)):
        return 2
    try:
        names = [path.name for path in directory.iterdir()]
    except OSError:
        return 2
    return 0 if any(name.startswith(RECORD) for name in names) else 1 if names else 2


def _is_made(directory: Path) -> bool:
    """Make a directory of ours where there is none; tell whether it is one."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return _is_ours(directory)


def _candidates() -> Iterator[tuple[Path, str]]:
    """Yield where it may be, the best first.

    What belongs to a login goes with the last one. Root's is the whole machine's: what its
    name servers were is kept where a logout takes nothing away.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    of_the_login = [(Path("/run/user") / str(os.getuid()), "carnet")]
    if named:
        of_the_login.insert(0, (Path(named), "carnet"))
    of_the_machine = [
        (Path("/run"), "carnet-client"),
        (Path("/dev/shm"), f"carnet-{os.getuid()}"),  # noqa: S108  checked to be ours below
    ]
    is_root = os.getuid() == 0
    yield from of_the_machine + of_the_login if is_root else of_the_login + of_the_machine


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

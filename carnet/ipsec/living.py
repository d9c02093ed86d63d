"""Whether an IPsec daemon lives that cannot be reached at its socket.

The socket may have been removed, or a configuration names another: what a daemon has set up goes
on as long as the daemon does, and it may answer again.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_SOCKETS = Path("thread-self/net/unix")
_INTERFACES = "net/dev"
"""A file of its own in each network namespace, by which two are told apart."""

_LISTENS = 1 << 16
"""__SO_ACCEPTCON: a flag of a socket in that list (linux/net.h)."""
_PATH = 7
"""Which word of a line there is the path; one that has no name has none."""
_ZOMBIE = "Z"


def lives(socket: Path, programs: Collection[str]) -> bool:
    """Tell whether somebody listens at what was that socket, or runs one of those programs.

    Whoever does so in another network namespace has no tunnels in this one. The list of sockets
    has those, too, whose file is gone, and whose process is hidden from this user. What nothing
    tells counts as living.
    """
    try:
        return _is_listened_at(socket) or any(_runs(each, programs) for each in _processes())
    except OSError:
        return True


def _is_listened_at(socket: Path) -> bool:
    meant = os.path.realpath(socket)
    for line in (_PROC / _SOCKETS).read_text(errors="replace").splitlines()[1:]:
        words = line.split(maxsplit=_PATH)
        named = len(words) > _PATH and words[_PATH].startswith("/")
        if named and int(words[3], 16) & _LISTENS and os.path.realpath(words[_PATH]) == meant:
            return True
    return False


def _processes() -> list[Path]:
    return [each for each in _PROC.iterdir() if each.name.isdecimal()]


def _runs(process: Path, programs: Collection[str]) -> bool:
    """Tell whether a process is one of those programs, here. Raises OSError if that is hidden."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
        own = _PROC / "thread-self" / _INTERFACES
        return (
            name in programs and rest.split()[0] != _ZOMBIE and own.samefile(process / _INTERFACES)
        )
    return False

"""Ordinary users on a machine of the lab: no capability, and nothing of root's to read."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.machine import Machine

GROUP = 61000
"""Whose members may call carnet-helper."""
ALICE, MALLORY = 61001, 61002
_CHECKOUT = Path(__file__).parents[1]
_OPEN = 0o001


def as_user(uid: int, *, member: bool = True) -> list[str]:
    """Return what a command begins with that such a user runs."""
    groups = f"--groups={GROUP}" if member else "--clear-groups"
    return [
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", groups),
        *("--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--"),
    ]


def admit(machine: Machine, *uids: int) -> None:
    """Let users whom the machine knows run programs, and give each a directory in memory."""
    machine.run(["sh", "-ec", _KNOWING, "sh", *map(str, uids)])
    for uid in uids:
        home = f"/run/user/{uid}"
        machine.run(["install", "-d", "-m", "0700", "-o", str(uid), "-g", str(uid), home])
    for closed, paths in _behind_closed(_NEEDED).items():
        machine.run(["sh", "-ec", _OPENING, "sh", str(closed), *map(str, paths)])


_KNOWING = f"""
for file in passwd group; do
    cp /etc/$file /run/$file; chmod 644 /run/$file; mount --bind /run/$file /etc/$file
done
for uid; do
    echo "user$uid:x:$uid:$uid::/:/bin/sh" >>/etc/passwd
    members="$members${{members:+,}}user$uid"
done
echo "callers:x:{GROUP}:$members" >>/etc/group
"""
"""Have the users in the group that may call carnet-helper, for this machine alone."""

_NEEDED = (Path(sys.base_prefix), Path(sys.prefix), _CHECKOUT)

_OPENING = """
closed=$1; shift
for path; do
    mkdir -p "/run/kept$path"; mount --bind "$path" "/run/kept$path"
done
mount -t tmpfs -o mode=0755 tmpfs "$closed"
for path; do
    mkdir -p "$path"; mount --bind "/run/kept$path" "$path"; umount "/run/kept$path"
done
"""
"""Have of a directory that only root enters nothing but what is needed, for this machine alone."""


def _behind_closed(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return those that not everybody gets to, none of them within another, by what is closed."""
    found: dict[Path, list[Path]] = {}
    for path in dict.fromkeys(paths):
        closed = _closed_parent(path)
        if closed is not None and not any(other in path.parents for other in paths):
            found.setdefault(closed, []).append(path)
    return found


def _closed_parent(path: Path) -> Path | None:
    """Return the outermost directory on the way that not everybody enters."""
    parents = [path, *path.parents]
    return next((each for each in reversed(parents) if not each.stat().st_mode & _OPEN), None)


def give(directory: Path, uid: int) -> None:
    """Make a directory and all in it a user's own."""
    for parent, _, files in os.walk(directory):
        for path in (parent, *(f"{parent}/{name}" for name in files)):
            os.chown(path, uid, uid, follow_symlinks=False)


def environment(uid: int) -> dict[str, str]:
    """Return what is in such a user's environment besides."""
    return {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}


def command(uid: int, argv: Sequence[str], *, member: bool = True) -> list[str]:
    """Return a command as such a user runs it."""
    return [*as_user(uid, member=member), *argv]

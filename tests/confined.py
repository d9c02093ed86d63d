"""Run a command as its unit confines it, as far as that goes without systemd.

`python -m tests.confined UNIT COMMAND…`: the unit's capabilities and no way to others, its
system calls and no others, and no memory that is writable and executable
(CapabilityBoundingSet, NoNewPrivileges, SystemCallFilter, MemoryDenyWriteExecute).
"""

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

from carnet.units import render

PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
SCMP_ACT_ERRNO, SCMP_ACT_ALLOW = 0x00050000, 0x7FFF0000
FILTERED = "--filtered"


def settings(unit: str, name: str) -> list[str]:
    """Return what the unit sets under that name, line by line."""
    text = render(unit, Path("/usr/bin/true"), Path("/etc/none"))
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def allowed_calls(unit: str) -> set[str]:
    """Return the system calls that the unit lets be, by systemd's own groups of them."""
    groups = _groups()
    allowed: set[str] = set()
    for line in settings(unit, "SystemCallFilter"):
        named = {call for each in line.removeprefix("~").split() for call in _calls(each, groups)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def _groups() -> dict[str, list[str]]:
    """Return what each group names, which may be other groups."""
    listing = ["systemd-analyze", "syscall-filter", "--no-pager"]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in listed.splitlines():
        word = line.strip()
        if line.startswith("@"):
            names = found.setdefault(word, [])
        elif word and not word.startswith("#"):
            names.append(word)
    return found


def _calls(name: str, groups: dict[str, list[str]]) -> set[str]:
    if name not in groups:
        return {name}
    return {call for each in groups[name] for call in _calls(each, groups)}


def filter_calls(allowed: set[str]) -> None:
    """Have every other system call fail with EPERM from now on, here and in what is begun."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    filtering = ctypes.c_void_p(library.seccomp_init(SCMP_ACT_ERRNO | errno.EPERM))
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # What this architecture lacks has a number that is none.
        if number >= 0 and library.seccomp_rule_add(filtering, SCMP_ACT_ALLOW, number, 0):
            raise OSError(f"seccomp_rule_add refused {name}")
    if library.seccomp_load(filtering):
        raise OSError("seccomp_load failed")


def confine(unit: str, command: list[str]) -> None:
    """Take memory and capabilities away, then go on with the system calls."""
    # An older kernel knows nothing of it (before 6.3); then only the rest is tried.
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    (kept,) = settings(unit, "CapabilityBoundingSet")
    names = (each.removeprefix("CAP_").lower() for each in kept.split())
    held = ",".join(["-all", *(f"+{name}" for name in names)])
    taken = ["setpriv", f"--bounding-set={held}", f"--inh-caps={held}", "--no-new-privs", "--"]
    again = [sys.executable, "-m", "tests.confined", FILTERED, unit, *command]
    os.execvp(taken[0], taken + again)  # noqa: S606


if __name__ == "__main__":
    if sys.argv[1] == FILTERED:
        filter_calls(allowed_calls(sys.argv[2]))
        os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606
    confine(sys.argv[1], sys.argv[2:])

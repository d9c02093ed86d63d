"""The name servers of a tunnel: laid over this machine's while the session lives.

A file in memory is mounted over /etc/resolv.conf (mount(8), --bind) and has no name any
more. What was there is never written to: taking the mount away restores it exactly, after
a crash as well, and a machine that is started anew has no trace of it.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from token_client.memory import memory_directory

RESOLV_CONF = Path("/etc/resolv.conf")
_RESOLVED = Path("/run/systemd/resolve")
"""Where systemd-resolved keeps what /etc/resolv.conf then leads to."""

_HEAD = "# Of the tunnel {name}, by carnet; `carnet disconnect` takes it away.\n"
_OURS = re.compile(r"# Of the tunnel (\S+), by carnet;")


def lay_over(name: str, servers: Sequence[str]) -> str | None:
    """Have names looked up at these servers; return why that cannot be had, if it cannot."""
    directory = memory_directory()
    if directory is None:
        return "there is no file system in memory here"
    if RESOLV_CONF.resolve().is_relative_to(_RESOLVED):
        return "systemd-resolved looks names up here"
    while (older := whose()) is not None and take_away(older):
        pass
    lines = [_HEAD.format(name=name), *(f"nameserver {server}\n" for server in servers)]
    with tempfile.NamedTemporaryFile("w", dir=directory) as file:
        file.writelines(lines)
        file.flush()
        Path(file.name).chmod(0o644)
        return _run("mount", "--bind", file.name, str(RESOLV_CONF))


def whose() -> str | None:
    """Return the tunnel whose servers are laid over; None where there is none."""
    try:
        found = _OURS.match(RESOLV_CONF.read_text(errors="replace"))
    except OSError:
        return None
    return found[1] if found else None


def take_away(name: str) -> bool:
    """Restore what was there before that tunnel; tell whether there was anything to restore."""
    return whose() == name and _run("umount", "--lazy", str(RESOLV_CONF)) is None


def _run(*command: str) -> str | None:
    """Run a command; return what it says where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return done.stderr.strip() or f"{command[0]} fails" if done.returncode else None

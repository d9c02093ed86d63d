"""The name servers of a tunnel: laid over this machine's while the session lives.

A file in memory is mounted over /etc/resolv.conf (mount(8), --bind) and has no name any
more. What was there is never written to: taking the mount away restores it exactly, after
a crash as well, and a machine that is started anew has no trace of it.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from carnet.ipsec import programs

RESOLV_CONF = Path("/etc/resolv.conf")

_HEAD = "# Of the tunnel {name}, by carnet; `carnet disconnect` takes it away.\n"
_OURS = re.compile(r"# Of the tunnel (\S+), by carnet;")


class ResolvConf:
    """The file that the resolvers of programs read, where none of a machine does it for them."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def is_meant(self) -> bool:
        """Whether names are looked up in this way here: it is the last one."""
        return True

    def refusal(self) -> None:
        """Refuse nothing: what lies over each other all goes."""

    def use(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at these servers; return why that cannot be had, if it cannot."""
        if self._directory is None:
            return "there is no file system in memory here"
        lines = [_HEAD.format(name=name), *(f"nameserver {server}\n" for server in servers)]
        with tempfile.NamedTemporaryFile("w", dir=self._directory) as file:
            file.writelines(lines)
            file.flush()
            Path(file.name).chmod(0o644)
            return run("mount", "--bind", file.name, str(RESOLV_CONF))

    def follow(self, name: str) -> None:
        """Do nothing: these are the same by whichever interface they are reached."""

    def whose(self) -> str | None:
        """Return the tunnel whose servers are laid over; None where there is none."""
        try:
            found = _OURS.match(RESOLV_CONF.read_text(errors="replace"))
        except OSError:
            return None
        return found[1] if found else None

    def restore(self, name: str) -> bool:
        """Restore what was there before that tunnel; tell whether there was anything to."""
        return self.whose() == name and run("umount", "--lazy", str(RESOLV_CONF)) is None


def run(*command: str) -> str | None:
    """Run a command; return what it says where it fails. Raises IPsecError."""
    try:
        done = programs.run(command)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return done.stderr.strip() or f"{command[0]} fails" if done.returncode else None

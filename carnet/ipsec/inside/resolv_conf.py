"""The name servers of a tunnel: laid over this machine's while the session lives.

A file in memory is mounted over /etc/resolv.conf (mount(8), --bind) and has no name any
more. What was there is never written to: taking the mount away restores it exactly, after
a crash as well, and a machine that is started anew has no trace of it. The kernel remembers the
name that it had, by which it is known whatever somebody writes into it. One that has none of
these, by a version before, is known by its first line. That says also which name servers lie
under it: those are the machine's own, as long as it is there.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from carnet.ipsec import programs

RESOLV_CONF = Path("/etc/resolv.conf")

Address = IPv4Address | IPv6Address

_HEAD = "# Of the tunnel {name}, by carnet; `carnet disconnect` takes it away. Under it: {under};\n"
_NAMED = "name-servers-of-{}-"
_LAID_OVER = re.compile(r".*/name-servers-of-([^/]+)-\w+(?://deleted)?")
"""The root of what is mounted, in proc_pid_mountinfo(5)."""
_MOUNTS = Path("/proc/self/mountinfo")
_OURS = re.compile(r"# Of the tunnel (\S+), by carnet;(?:.* Under it:([^;\n]*);\n)?")


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
        try:
            prefix = _NAMED.format(name)
            with tempfile.NamedTemporaryFile("w", dir=self._directory, prefix=prefix) as file:
                file.write(contents(name, servers))
                file.flush()
                Path(file.name).chmod(0o644)
                return run("mount", "--bind", file.name, str(RESOLV_CONF))
        except OSError as error:
            return f"{self._directory}: {error.strerror}"

    def follow(self, name: str) -> None:
        """Do nothing: these are the same by whichever interface they are reached."""

    def whose(self) -> str | None:
        """Return the tunnel whose servers are laid over; None where there is none."""
        return next((name for name, _ in _laid_over()), None)

    def restore(self, name: str) -> bool:
        """Restore what was there before that tunnel; tell whether there was anything to."""
        over = next(_laid_over(), None)
        if over is None or over[0] != name:
            return False
        return run("umount", "--lazy", "--no-canonicalize", over[1]) is None


def _laid_over() -> Iterator[tuple[str, str]]:
    """Yield what of ours can be taken away, the newest first: whose, and where it is.

    By now /etc/resolv.conf may be another file than it was mounted over.
    """
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in reversed(lines):
        device, root, path = line.split(" ", 5)[2:5]
        at = _unescaped(path)
        if _is_on_top(device, at):
            found = _LAID_OVER.fullmatch(root) or _by_its_first_line(at)
            if found:
                yield found[1], at


def _by_its_first_line(at: str) -> re.Match[str] | None:
    """Return what a mount of another name says of itself, where programs read name servers."""
    return _ours(*_read()) if Path(at) == RESOLV_CONF.resolve() else None


def _is_on_top(device: str, at: str) -> bool:
    """Whether a mount of a file without a name, on that device, is what that path leads to."""
    try:
        status = Path(at).stat()
    except OSError:
        return False
    its = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return (its, status.st_nlink) == (device, 0)


def _unescaped(path: str) -> str:
    """Return a path that was written with its blanks and backslashes in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def contents(name: str, servers: Sequence[str]) -> str:
    """Return what is laid over what there is now."""
    under = " ".join(map(str, machine_s_servers()))
    lines = [f"nameserver {server}\n" for server in servers]
    return "".join([_HEAD.format(name=name, under=under), *lines])


def machine_s_servers() -> list[Address]:
    """Return the machine's own name servers: what lies under a tunnel's, where these are used."""
    text, status = _read()
    found = _ours(text, status)
    if found is None or found[2] is None:
        return list(servers_in(text))
    return list(addresses(found[2].split()))


def _read() -> tuple[str, os.stat_result | None]:
    """Return what programs read, and of which file it is; None where it cannot be read."""
    try:
        with RESOLV_CONF.open(errors="replace") as file:
            return file.read(), os.fstat(file.fileno())
    except OSError:
        return "", None


def _ours(text: str, status: os.stat_result | None) -> re.Match[str] | None:
    """Return the first line of what we mounted; None if it is another's."""
    # What we mount has no name any more; whoever else writes that file leaves it one.
    its = status is not None and status.st_nlink == 0 and status.st_uid in {0, os.geteuid()}
    return _OURS.match(text) if its else None


def servers_in(text: str) -> Iterator[Address]:
    """Yield the name servers that a file like resolv.conf(5) names."""
    for keyword, *values in filter(None, map(str.split, text.splitlines())):
        if keyword == "nameserver":
            yield from addresses(values[:1])


def addresses(texts: Iterable[str]) -> Iterator[Address]:
    """Yield those that are addresses, without interface and name (resolved.conf(5))."""
    for text in texts:
        with suppress(ValueError):
            yield ip_address(text.partition("#")[0].partition("%")[0])


def run(*command: str) -> str | None:
    """Run a command; return what it says where it fails. Raises IPsecError."""
    try:
        done = programs.run(command)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    return done.stderr.strip() or f"{command[0]} fails" if done.returncode else None

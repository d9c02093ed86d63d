"""The name servers of a tunnel, where systemd-resolved looks names up: those of its interface.

The servers of the interface by which packets go into the tunnel, with the routing domain "~."
by which all names are looked up there (resolved.conf(5), org.freedesktop.resolve1(5)). What
that interface had is kept in memory and put back: systemd-resolved knows what systemd-networkd
wants of it, and not what NetworkManager has once told it.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from carnet.files import write_private
from carnet.ipsec import programs
from carnet.ipsec.inside.resolv_conf import RESOLV_CONF, run
from carnet.ipsec.iproute import ip

_RESOLVED = Path("/run/systemd/resolve")
"""Where systemd-resolved keeps what /etc/resolv.conf then leads to."""
_RECORD = "name-servers.json"
_EVERYTHING = "~."


class _Link(msgspec.Struct, frozen=True):
    """What one interface has of name servers, as resolvectl says and takes it."""

    dns: tuple[str, ...]
    domain: tuple[str, ...]


class _Record(msgspec.Struct, frozen=True):
    """Whose servers are used, on which interface, and what that had before."""

    name: str
    servers: tuple[str, ...]
    interface: str
    before: _Link


class Resolved(msgspec.Struct, frozen=True):
    """systemd-resolved, told by resolvectl(1)."""

    directory: Path | None

    def is_meant(self) -> bool:
        """Whether it looks names up here: programs are led to it by /etc/resolv.conf."""
        return RESOLV_CONF.resolve().is_relative_to(_RESOLVED)

    def use(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at these servers; return why that cannot be had, if it cannot."""
        if self.directory is None:
            return "there is no file system in memory here"
        interface = _interface_towards(servers[0])
        before = _link(interface) if interface else None
        if interface is None or before is None:
            return "systemd-resolved does not answer, or no way leads to them"
        # Before they are used, so that whatever ends this command they can be put back.
        record = _Record(name, tuple(servers), interface, before)
        write_private(self.directory / _RECORD, msgspec.json.encode(record))
        trouble = _set(interface, _Link(tuple(servers), (_EVERYTHING,)))
        if trouble is not None:
            self.restore(name)
        return trouble

    def whose(self) -> str | None:
        """Return the tunnel whose servers are used; None where there is none."""
        record = self._read()
        return record.name if record else None

    def restore(self, name: str) -> bool:
        """Put back what the interface had; one that is gone had it taken along."""
        record = self._read()
        if self.directory is None or record is None or record.name != name:
            return False
        run("resolvectl", "revert", record.interface)
        now = _link(record.interface)
        if now is not None and now != record.before:
            _set(record.interface, record.before)
        (self.directory / _RECORD).unlink(missing_ok=True)
        return True

    def follow(self, name: str) -> None:
        """Have that tunnel's servers on the interface that leads to them now."""
        record = self._read()
        if record is not None and record.name == name:
            now = _interface_towards(record.servers[0])
            if now is not None and now != record.interface and self.restore(name):
                self.use(name, record.servers)

    def _read(self) -> _Record | None:
        with suppress(OSError, msgspec.MsgspecError):
            if self.directory is not None:
                return msgspec.json.decode((self.directory / _RECORD).read_bytes(), type=_Record)
        return None


def _interface_towards(server: str) -> str | None:
    with suppress(ValueError, LookupError):
        return str(json.loads(ip("-json", "route", "get", server).stdout)[0]["dev"])
    return None


def _link(interface: str) -> _Link | None:
    """Return what an interface has; None if it or systemd-resolved is not there."""
    dns, domain = (_said(each, interface) for each in ("dns", "domain"))
    return None if dns is None or domain is None else _Link(dns, domain)


def _said(what: str, interface: str) -> tuple[str, ...] | None:
    """Return the words after "Link 2 (eth0):"."""
    with suppress(OSError):
        done = programs.run(["resolvectl", what, interface])
        if not done.returncode:
            return tuple(done.stdout.partition("):")[2].split())
    return None


def _set(interface: str, wanted: _Link) -> str | None:
    """Have systemd-resolved take all of it; return what it says where it does not."""
    domain = run("resolvectl", "domain", interface, *(wanted.domain or ("",)))
    return domain or run("resolvectl", "dns", interface, *(wanted.dns or ("",)))

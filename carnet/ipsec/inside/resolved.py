"""The name servers of a tunnel, where systemd-resolved looks names up: those of its interface.

The servers of the interface by which packets go into the tunnel, with the routing domain "~."
by which all names are looked up there (resolved.conf(5), org.freedesktop.resolve1(5)). What
that interface had is kept in memory and put back: systemd-resolved knows what systemd-networkd
wants of it, and not what NetworkManager has once told it. What somebody has told it of another
network meanwhile stays.

Root's tunnels and those of ordinary users, by carnet-helper, each have a record of their own; of
either, none are used while the other's are.
"""

import json
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import msgspec
from msgspec.structs import replace

from carnet.errors import IPsecError
from carnet.files import is_guarded, read_guarded, rewrite_private, write_private
from carnet.ipsec import programs
from carnet.ipsec.inside.resolv_conf import RESOLV_CONF, Address, addresses
from carnet.ipsec.iproute import ip

_RESOLVED = Path("/run/systemd/resolve")
"""Where systemd-resolved keeps what /etc/resolv.conf then leads to."""
_RECORD = "name-servers.json"
_KEPT = tuple(map(Path, ("/run/carnet-client", "/run/carnet-helper", "/dev/shm/carnet-0")))  # noqa: S108  root's, looked at
"""Where root's commands and carnet-helper keep theirs; anybody may have made the last one."""
_LINE = re.compile(r"^(?:Link \d+ \((.*?)\)|(Global)):(.*(?:\n[ \t]+.*)*)$", re.MULTILINE)
"""A line of `resolvectl dns`, and those that it goes on in."""
_EVERYTHING = "~."
_USED = "another tunnel's are used here; end that first"
_SILENT = "systemd-resolved does not answer"
LIMIT_SECONDS = 5.0
"""For which it is waited for at each question; who does not answer by then is asked no other."""


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
    reverted: bool = False
    """Whether that may have been told to forget them, and not yet what it had before."""

    @property
    def told(self) -> _Link:
        """What the interface was told."""
        return _Link(_numbers(self.servers), (_EVERYTHING,))


def machine_s_among(asked: Iterable[Address]) -> set[Address]:
    """Return the machine's own of the servers that are asked, without those of a tunnel of ours.

    Instead of these, what their interface had before. Where nothing tells that they are asked
    for that tunnel alone they are the machine's too.
    """
    found = set(asked)
    for record in filter(None, map(_record, _KEPT)):
        links = _all_links()
        if links is not None and links.get(record.interface) != record.told.dns:
            continue
        before = set(addresses(record.before.dns))
        found |= before
        if links is not None:
            del links[record.interface]
            others = {each for servers in links.values() for each in addresses(servers)}
            found -= set(addresses(record.servers)) - others - before
    return found


class Resolved(msgspec.Struct, frozen=True):
    """systemd-resolved, told by resolvectl(1)."""

    directory: Path | None

    def is_meant(self) -> bool:
        """Whether it looks names up here: programs are led to it by /etc/resolv.conf."""
        return RESOLV_CONF.resolve().is_relative_to(_RESOLVED)

    def refusal(self) -> str | None:
        """Return why none may be used now, if so: another's are, who has a record of his own."""
        return _USED if self._another_s() is not None else None

    def use(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at these servers; return why that cannot be had, if it cannot.

        Raises IPsecError where it stops to answer: they may be used until they are restored.
        """
        if self.directory is None:
            return "there is no file system in memory here"
        if not is_guarded(self.directory):
            return f"others can write to {self.directory}"  # what is kept would be no record
        interface = _interface_towards(servers[0])
        try:
            before = _link(interface) if interface else None
        except IPsecError as error:
            return error.sentence.rstrip(".")
        if interface is None or before is None:
            return "no way leads to them"
        # Before they are used, so that whatever ends this command they can be put back.
        record = _Record(name, tuple(servers), interface, before)
        try:
            write_private(self.directory / _RECORD, msgspec.json.encode(record))
        except OSError as error:
            return f"{error.filename}: {error.strerror}"
        trouble = _set(interface, _Link(tuple(servers), (_EVERYTHING,)))
        if trouble is not None:
            self.restore(name)
        return trouble

    def whose(self) -> str | None:
        """Return the tunnel whose servers are used; None where there is none."""
        record = self._read() or self._another_s()
        return record.name if record else None

    def restore(self, name: str) -> bool:
        """Put back what the interface had; one that is gone had it taken along.

        Also by root who ends a user's tunnel, where that has a record elsewhere. Raises
        IPsecError where it cannot be asked or told: all is then as it was, for another try.
        """
        restored = False
        for directory in self._places():
            record = _record(directory)
            if record is not None and record.name == name:
                _put_back(record, directory)
                (directory / _RECORD).unlink(missing_ok=True)
                restored = True
        return restored

    def restore_unrecorded(self, servers: Sequence[str]) -> bool:
        """Have a tunnel's servers forgotten where the record of what there was before is damaged.

        The interface then has what systemd-networkd wants of it: what NetworkManager told it once
        it tells again with the next connection. Returns whether there is such a record. Raises
        IPsecError as restore() does.
        """
        damaged = [each for each in self._places() if _is_damaged(each)]
        if damaged and servers:
            links, told = _all_links(), _Link(_numbers(servers), (_EVERYTHING,))
            if links is None:
                raise IPsecError(f"{_SILENT}.")
            for interface in (each for each, dns in links.items() if dns == told.dns):
                if _is_there(interface) and _link(interface) == told:
                    _resolvectl("revert", interface)
        for directory in damaged:
            (directory / _RECORD).unlink(missing_ok=True)
        return bool(damaged)

    def follow(self, name: str) -> None:
        """Have that tunnel's servers on the interface that leads to them now.

        Nobody may restore them meanwhile: they are, for a moment. Raises IPsecError.
        """
        record = self._read()
        if record is not None and record.name == name:
            now = _interface_towards(record.servers[0])
            if now is not None and now != record.interface and self.restore(name):
                self.use(name, record.servers)

    def _read(self) -> _Record | None:
        return _record(self.directory) if self.directory else None

    def _another_s(self) -> _Record | None:
        """Return what another has set, and is used still."""
        return next((each for each in self._others() if _is_used(each)), None)

    def _others(self) -> Iterator[_Record]:
        return filter(None, map(_record, self._places()[1:]))

    def _places(self) -> tuple[Path, ...]:
        """Return where records may be, our own first; none for who may set nothing."""
        return tuple(dict.fromkeys((self.directory, *_KEPT))) if self.directory else ()


def _record(directory: Path) -> _Record | None:
    """Return the record that is kept there, if root or this user alone can have put it there."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(read_guarded(directory / _RECORD), type=_Record)
    return None


def _is_damaged(directory: Path) -> bool:
    """Tell whether what is kept there is ours, and no record."""
    try:
        msgspec.json.decode(read_guarded(directory / _RECORD), type=_Record)
    except msgspec.MsgspecError:
        return True
    except OSError:
        pass
    return False


def _is_used(record: _Record) -> bool:
    """Tell whether they are; what cannot be asked may have them yet."""
    try:
        now = _link(record.interface)
    except IPsecError:
        return True
    return now is not None and now.dns == record.told.dns


def _put_back(record: _Record, directory: Path) -> None:
    """Put back what the interface had, as far as it has what it was told.

    The rest a network manager has told it, of another network; or whoever told it was killed
    halfway. Raises IPsecError.
    """
    interface, before = record.interface, record.before
    now = wanted = _link(interface)
    if now == record.told or (now is not None and _is_reverted(record, now)):
        # It has nothing then, or half of it, which is not to be taken for a network manager's.
        # Where that cannot be written down, it is restored all the same.
        with suppress(OSError):
            data = msgspec.json.encode(replace(record, reverted=True))
            rewrite_private(directory / _RECORD, data)
        _resolvectl("revert", interface)
        now, wanted = _link(interface), before
    elif now is not None:
        wanted = _mended(record, now)
    if now is not None and wanted is not None and now != wanted:
        trouble = _set(interface, wanted, now)
        if trouble is not None and _is_there(interface):
            raise IPsecError(f"systemd-resolved does not take back what it had ({trouble}).")


def _is_reverted(record: _Record, now: _Link) -> bool:
    """Tell whether who put it back was stopped halfway."""
    before = record.before
    halfway = now.dns in ((), before.dns) and now.domain in ((), before.domain)
    return record.reverted and halfway


def _mended(record: _Record, now: _Link) -> _Link:
    """Return what an interface is to have that has something else than it was told."""
    told, before = record.told, record.before
    of_that_network = now.dns in (told.dns, before.dns)
    return _Link(
        dns=before.dns if now.dns == told.dns else now.dns,
        domain=(before.domain if of_that_network else ())
        if now.domain == told.domain
        else now.domain,
    )


def _interface_towards(server: str) -> str | None:
    with suppress(ValueError, LookupError):
        return str(json.loads(ip("-json", "route", "get", server).stdout)[0]["dev"])
    return None


def _link(interface: str) -> _Link | None:
    """Return what an interface has; None if it is not there. Raises IPsecError."""
    dns, domain = (_said(each, interface) for each in ("dns", "domain"))
    return None if dns is None or domain is None else _Link(_numbers(dns), domain)


def _all_links() -> dict[str, tuple[str, ...]] | None:
    """Return the servers of each interface, and of "Global"; None where nothing tells them."""
    try:
        done = _resolvectl("dns")
    except IPsecError:
        return None
    if done.returncode:
        return None
    return {
        found[1] or found[2]: _numbers(found[3].split()) for found in _LINE.finditer(done.stdout)
    }


def _numbers(servers: Sequence[str]) -> tuple[str, ...]:
    """Return servers in the one way of writing them, but for what is more than an address."""
    return tuple(map(_number, servers))


def _number(server: str) -> str:
    with suppress(ValueError):
        return str(ip_address(server))
    return server


def _said(what: str, interface: str) -> tuple[str, ...] | None:
    """Return the words after "Link 2 (eth0):"; None if it is not there. Raises IPsecError."""
    done = _resolvectl(what, interface)
    if not done.returncode:
        return tuple(done.stdout.partition("):")[2].split())
    if _is_there(interface):
        raise IPsecError(f"{_SILENT}.")
    return None


def _is_there(interface: str) -> bool:
    with suppress(OSError):
        return socket.if_nametoindex(interface) > 0
    return False


def _resolvectl(*words: str) -> programs.Done:
    """Run resolvectl(1), which may fail; raises IPsecError where it tells nothing."""
    try:
        return programs.run(["resolvectl", *words], seconds=LIMIT_SECONDS)
    except OSError as error:
        raise IPsecError(f"{_SILENT}.") from error


def _set(interface: str, wanted: _Link, now: _Link | None = None) -> str | None:
    """Have systemd-resolved take all of it; return what it says where it does not.

    What is so `now`, where that is known, is not told again. Raises IPsecError.
    """
    for what in ("domain", "dns"):
        words = getattr(wanted, what)
        if now is None or words != getattr(now, what):
            done = _resolvectl(what, interface, *(words or ("",)))
            if done.returncode:
                return done.stderr.strip() or "resolvectl fails"
    return None

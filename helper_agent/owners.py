"""Whose each tunnel is, and where it leads: a file each, in memory, so that a restart forgets none.

Routes and policies are the whole machine's. Where two tunnels led to one network the packets
of one user would go into the other's, so no two users have tunnels to one network.
"""

import threading
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import msgspec

from carnet.counting import counted
from carnet.errors import IPsecError
from carnet.files import private_directory, write_private
from carnet.ipsec.helper.messages import Spec
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective

_DIRECTORY = "owners"


class Leading(msgspec.Struct, frozen=True):
    """What of a tunnel becomes routes and policies of this machine: no word of it may change."""

    objective: Objective
    mode: Mode
    ike_version: int
    targets: frozenset[str]
    networks: frozenset[str]
    virtual_address: str | None

    @property
    def inside(self) -> frozenset[str]:
        """The networks to which it leads, Target alone where there are no others."""
        return self.networks or frozenset(str(ip_network(each)) for each in self.targets)


def leading(spec: Spec) -> Leading:
    """Return where that tunnel leads, and how."""
    return Leading(
        objective=spec.objective,
        mode=spec.mode,
        ike_version=spec.ike_version,
        targets=frozenset(spec.remote_addresses),
        networks=frozenset(spec.remote_networks),
        virtual_address=spec.virtual_address,
    )


class Holding(msgspec.Struct, frozen=True):
    """A tunnel, or what is left of one."""

    uid: int
    networks: frozenset[str]
    installed: Leading | None = None
    """What the daemon was given last; None before that."""
    block: str | None = None
    """With which packet filter packets in clear are held back; None where they are not."""
    held: frozenset[str] = frozenset()
    """The networks for which its block was last made."""
    reaches: frozenset[str] = frozenset()
    """Addresses of its Target and Hosts, to which what belongs to it leaves as it is."""


class Owners:
    """The owners of tunnels and blocks, by name."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory / _DIRECTORY
        self._most = most
        self._lock = threading.Lock()
        private_directory(self._directory)

    def claim(self, name: str, wanted: Holding, *, taken: bool) -> None:
        """Make a name, and the way to those networks, the caller's. Raises IPsecError.

        `taken` says that there is something of that name on this machine already: what has
        no owner here is nobody's whom we know, and so not the caller's either. What was
        there of the caller's stays: its networks, and what is installed, or by which packet
        filter its block is, unless that is new.
        """
        with self._lock:
            before = self._read(name)
            if (before is None and taken) or (before is not None and before.uid != wanted.uid):
                raise IPsecError("There is a tunnel of that name already; connect again.")
            if before is not None:
                wanted = Holding(
                    wanted.uid,
                    wanted.networks | before.networks,
                    wanted.installed or before.installed,
                    wanted.block or before.block,
                    wanted.held or before.held,
                    wanted.reaches | before.reaches,
                )
            self._check(name, wanted)
            write_private(self._directory / name, msgspec.json.encode(wanted))

    def check(self, wanted: Holding) -> None:
        """Refuse what claim() would refuse to a new name. Raises IPsecError."""
        with self._lock:
            self._check("", wanted)

    def owns(self, uid: int, name: str) -> bool:
        """Tell whether a name is the caller's."""
        holding = self._read(name)
        return holding is not None and holding.uid == uid

    def installed(self, uid: int, name: str) -> Leading | None:
        """Return what the caller installed by that name; None if there is no such of hers."""
        holding = self._read(name)
        return holding.installed if holding is not None and holding.uid == uid else None

    def leading(self, name: str) -> Leading | None:
        """Return what anybody installed by that name."""
        holding = self._read(name)
        return holding.installed if holding else None

    def block(self, name: str) -> str | None:
        """Return with which packet filter a tunnel's block was made; None if it is not known."""
        holding = self._read(name)
        return holding.block if holding else None

    def is_held(self, name: str) -> bool:
        """Tell whether a tunnel's block, if there is one, is for all to which the tunnel leads."""
        holding = self._read(name)
        leads = holding.installed if holding else None
        return holding is not None and leads is not None and leads.inside <= holding.held

    def names(self) -> frozenset[str]:
        """Return the names that are somebody's."""
        return frozenset(path.name for path in self._directory.glob("carnet-*"))

    def forget(self, name: str) -> None:
        """Let a name go, of which nothing is left."""
        with self._lock:
            (self._directory / name).unlink(missing_ok=True)

    def _check(self, name: str, wanted: Holding) -> None:
        others = map(self._read, self.names() - {name})
        held = [holding for holding in others if holding is not None]
        if sum(holding.uid == wanted.uid for holding in held) >= self._most:
            raise IPsecError(
                f"You have {counted(self._most, 'tunnel')} already; end one with `carnet "
                f"disconnect`."
            )
        for holding in held:
            if holding.uid != wanted.uid and _collide(holding, wanted):
                raise IPsecError(
                    "Another user of this machine has a tunnel that leads there; her packets"
                    " and yours would mix. Name other networks with --network, or wait."
                )

    def _read(self, name: str) -> Holding | None:
        try:
            return msgspec.json.decode((self._directory / name).read_bytes(), type=Holding)
        except (OSError, msgspec.MsgspecError):
            return None


def _collide(one: Holding, other: Holding) -> bool:
    """Tell whether what is sent into one tunnel, or to its Target or Hosts, would go elsewhere.

    Where both have the same Target or Host, each lets through what is meant for it.
    """
    return (
        _overlap(one.reaches - other.reaches, other.networks)
        or _overlap(other.reaches - one.reaches, one.networks)
        or _overlap(one.networks, other.networks)
        or _overlap(_ends(one, targets=False), other.networks | _ends(other))
        or _overlap(_ends(other, targets=False), one.networks | _ends(one))
    )


def _ends(holding: Holding, *, targets: bool = True) -> frozenset[str]:
    """Return the address inside the tunnel, and those that it leads to outside."""
    leads = holding.installed
    if leads is None:
        return frozenset()
    inner = frozenset(filter(None, (leads.virtual_address,)))
    return inner | leads.targets if targets else inner


def _overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    nets = [(ip_network(one), ip_network(other)) for one in some for other in others]
    return any(one.version == other.version and one.overlaps(other) for one, other in nets)

"""Whose each tunnel is, and where it leads: a file each, in memory, so that a restart forgets none.

Routes and policies are the whole machine's. Where two tunnels led to one network the packets
of one user would go into the other's, so no two users have tunnels to one network.
"""

import threading
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

import msgspec

from carnet.errors import IPsecError
from carnet.files import private_directory, write_private

_DIRECTORY = "owners"


class Holding(msgspec.Struct, frozen=True):
    """A tunnel, or what is left of one."""

    uid: int
    networks: frozenset[str]


class Owners:
    """The owners of tunnels and blocks, by name."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory / _DIRECTORY
        self._most = most
        self._lock = threading.Lock()
        private_directory(self._directory)

    def claim(self, name: str, uid: int, networks: Iterable[str], *, taken: bool) -> None:
        """Make a name, and the way to those networks, the caller's. Raises IPsecError.

        `taken` says that there is something of that name on this machine already: what has
        no owner here is nobody's whom we know, and so not the caller's either.
        """
        with self._lock:
            holding = self._read(name)
            if (holding is None and taken) or (holding is not None and holding.uid != uid):
                raise IPsecError("There is a tunnel of that name already; connect again.")
            wanted = frozenset(networks) | (holding.networks if holding else frozenset())
            self._check(name, Holding(uid, wanted))
            write_private(self._directory / name, msgspec.json.encode(Holding(uid, wanted)))

    def owns(self, uid: int, name: str) -> bool:
        """Tell whether a name is the caller's."""
        holding = self._read(name)
        return holding is not None and holding.uid == uid

    def networks(self, name: str) -> frozenset[str]:
        """Return where a tunnel leads; nowhere if it is nobody's."""
        holding = self._read(name)
        return holding.networks if holding else frozenset()

    def forget(self, name: str) -> None:
        """Let a name go, of which nothing is left."""
        with self._lock:
            (self._directory / name).unlink(missing_ok=True)

    def _check(self, name: str, wanted: Holding) -> None:
        others = {path.name: self._read(path.name) for path in self._directory.glob("carnet-*")}
        others.pop(name, None)
        held = [holding for holding in others.values() if holding is not None]
        if sum(holding.uid == wanted.uid for holding in held) >= self._most:
            raise IPsecError(
                f"You have {self._most} tunnels already; end one with `carnet disconnect`."
            )
        for holding in held:
            if holding.uid != wanted.uid and _overlap(holding.networks, wanted.networks):
                raise IPsecError(
                    "Another user of this machine has a tunnel that leads there; her packets"
                    " and yours would mix. Name other networks with --network, or wait."
                )

    def _read(self, name: str) -> Holding | None:
        try:
            return msgspec.json.decode((self._directory / name).read_bytes(), type=Holding)
        except (OSError, msgspec.MsgspecError):
            return None


def _overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    nets = [(ip_network(one), ip_network(other)) for one in some for other in others]
    return any(one.version == other.version and one.overlaps(other) for one, other in nets)

"""Whose each tunnel is, and what it claims: a file each, in memory; a restart forgets none."""

import threading
from collections.abc import Collection
from pathlib import Path

import msgspec

from carnet.counting import counted
from carnet.errors import IPsecError, TakenError
from carnet.files import private_directory
from carnet.ipsec.strongswan_parts import meets
from helper_agent import records
from helper_agent.claims import Held, Holding, Leading, collide, collides_further

NOT_HERS = "There is no such tunnel of yours; connect again."

_ANOTHER = "There is a tunnel of that name already; connect again."
_UNMADE = "The block of that tunnel cannot be made; end it with `carnet disconnect`."
_MEETS = "The name of that tunnel does not go with another's on this machine; connect again."
_TAKEN = (
    "Another tunnel of this machine has an IKE identity of this one, so that its key could be"
    " taken for this one's; connect again, with the next key pair."
)

_DIRECTORY = "owners"

_BLOCKS = 4
"""Of one name; where one could not be made nobody knows whether it stands or the one before."""


class Owners:
    """The owners of tunnels and blocks, by name."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory / _DIRECTORY
        self._most = most
        self._lock = threading.Lock()
        private_directory(self._directory)

    def claim(
        self,
        name: str,
        wanted: Holding,
        *,
        taken: bool,
        installed: bool = False,
        others: Collection[Holding] = (),
        names: Collection[str] = (),
    ) -> None:
        """Make a name, and the way to those networks, the caller's. Raises IPsecError.

        `taken` says that there is something of that name on this machine already: what has
        no owner here is nobody's whom we know, and so not the caller's either. `installed` says
        that the daemon has it: what leads elsewhere may stand then, and is to be ended first.
        `names` are those of all that there is here, whoever has it: in the kernel none is to meet
        another's. `others` are nobody's here: root's. What came after hers, and led there all the
        same, is not held against her as far as hers went by then, and no further; what it is called
        always is.

        What there was of the caller's stays hers: what is installed, unless that is new, and
        her block until settle() says that another stands in its place.
        """
        with self._lock:
            before = self._read(name) or (None if taken else Holding(wanted.uid))
            if before is None or before.uid != wanted.uid:
                raise IPsecError(NOT_HERS)
            if meets(name, self.names() | frozenset(names)):
                raise IPsecError(_MEETS)
            merged = before.joined(wanted)
            if installed and merged.is_another_than(before):
                raise IPsecError(_ANOTHER)
            if len(merged.blocks) > _BLOCKS:
                raise IPsecError(_UNMADE)
            further = [each for each in others if collides_further(merged, before, each)]
            self._check(name, merged, further)
            self._check_identities(name, merged, others)
            self._write(name, merged)

    def settle(self, name: str, held: Held) -> None:
        """Keep nothing for hers but this block, which stands in place of all that was before."""
        with self._lock:
            holding = self._read(name)
            if holding is not None:
                self._write(name, msgspec.structs.replace(holding, blocks=(held,)))

    def check(self, wanted: Holding, others: Collection[Holding] = ()) -> None:
        """Refuse what claim() would refuse to a new name. Raises IPsecError."""
        with self._lock:
            self._check("", wanted, others)

    def owns(self, uid: int, name: str) -> bool:
        """Tell whether a name is the caller's."""
        holding = self._read(name)
        return holding is not None and holding.uid == uid

    def has_any(self, uid: int) -> bool:
        """Tell whether anything is the caller's."""
        return any(self.owns(uid, name) for name in self.names())

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
        return holding.made_by if holding else None

    def is_held(self, name: str) -> bool:
        """Tell whether a tunnel's block, if there is one, is for all to which the tunnel leads."""
        holding = self._read(name)
        leads = holding.installed if holding else None
        blocks = holding.blocks if holding else ()
        return bool(leads and blocks and all(each.holds(leads.inside) for each in blocks))

    def names(self) -> frozenset[str]:
        """Return the names that are somebody's."""
        return frozenset(path.name for path in self._directory.glob("carnet-*"))

    def forget(self, name: str) -> None:
        """Let a name go, of which nothing is left."""
        with self._lock:
            (self._directory / name).unlink(missing_ok=True)

    def _check(self, name: str, wanted: Holding, others: Collection[Holding]) -> None:
        held = self._all_but(name)
        if sum(holding.uid == wanted.uid for holding in held) >= self._most:
            raise IPsecError(
                f"You have {counted(self._most, 'tunnel')} already; end one with `carnet "
                f"disconnect`."
            )
        if any(holding.uid == records.NOBODY for holding in held):
            # What that leads to, or holds back, is not known: it may be all.
            raise IPsecError(
                "What a tunnel of this machine claims cannot be read any more; have root end it"
                " with `carnet disconnect --release`, and connect again."
            )
        for holding in (*(each for each in held if each.uid != wanted.uid), *others):
            if collide(holding, wanted):
                raise TakenError(
                    "Another user of this machine has a tunnel that leads there; her packets"
                    " and yours would mix. Name other networks with --network, or wait."
                )

    def _check_identities(self, name: str, wanted: Holding, others: Collection[Holding]) -> None:
        """Refuse one for which the daemon has somebody else's key, whoever was the first."""
        theirs = [each for each in self._all_but(name) if each.uid != wanted.uid]
        if any(wanted.identities & each.identities for each in (*theirs, *others)):
            raise IPsecError(_TAKEN)

    def _all_but(self, name: str) -> list[Holding]:
        read = map(self._read, self.names() - {name})
        return [holding for holding in read if holding is not None]

    def _write(self, name: str, holding: Holding) -> None:
        records.write(self._directory / name, holding)

    def _read(self, name: str) -> Holding | None:
        return records.read(self._directory / name)

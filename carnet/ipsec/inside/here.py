"""Setting on this machine itself, with privileges, what belongs to the inside of a tunnel."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from carnet.ipsec.inside.mtu import fit
from carnet.ipsec.inside.resolv_conf import ResolvConf
from carnet.ipsec.inside.resolved import Resolved


class Inside(Protocol):
    """One way to set them."""

    def fit(
        self, name: str, address: str, mtu: int, peers: Collection[str], networks: Collection[str]
    ) -> None:
        """Have no longer packets go into the tunnel of this virtual address. Raises IPsecError.

        Target is at one of `peers`, and leads to these networks; none: to itself.
        """

    def use_servers(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at a tunnel's servers; return why that cannot be had, if so.

        Raises IPsecError.
        """

    def follow_servers(self, name: str) -> None:
        """Have a tunnel's servers go with it to another interface, if they are used at all."""

    def whose_servers(self) -> str | None:
        """Return the tunnel whose servers are used; None where there is none."""

    def restore_servers(self, name: str) -> bool:
        """Put back what there was before that tunnel's; tell whether there was anything to.

        Raises IPsecError where nothing can be tried.
        """

    def restore_unrecorded(self, servers: Sequence[str]) -> bool:
        """Have these forgotten where a record is damaged; tell if one was. Raises IPsecError."""


class NameServers(Protocol):
    """One way in which a machine looks names up."""

    def is_meant(self) -> bool:
        """Whether names are looked up in this way here."""

    def refusal(self) -> str | None:
        """Return why none may be used now, if so: another's are, who sets them elsewhere."""

    def use(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at these servers; return why that cannot be had, if it cannot."""

    def follow(self, name: str) -> None:
        """Have that tunnel's servers go with it to another interface."""

    def whose(self) -> str | None:
        """Return the tunnel whose servers are used."""

    def restore(self, name: str) -> bool:
        """Put back what there was before that tunnel; tell whether there was anything to.

        Raises IPsecError where nothing can be tried.
        """


class Here:
    """This machine, for who may set it; `directory` is in memory, and None where there is none."""

    def __init__(self, directory: Path | None) -> None:
        self._resolved = Resolved(directory)
        self._ways: tuple[NameServers, ...] = (self._resolved, ResolvConf(directory))

    def fit(
        self,
        name: str,  # noqa: ARG002  the helper's
        address: str,
        mtu: int,
        peers: Collection[str],
        networks: Collection[str],
    ) -> None:
        """Have no longer packets go into the tunnel of this virtual address. Raises IPsecError."""
        fit(address, mtu, peers, networks)

    def use_servers(self, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up at a tunnel's servers; return why that cannot be had, if so."""
        way = next(each for each in self._ways if each.is_meant())
        taken = way.refusal()
        if taken is not None:
            return taken
        while (older := self.whose_servers()) is not None and self.restore_servers(older):
            pass
        return way.use(name, servers)

    def follow_servers(self, name: str) -> None:
        """Have a tunnel's servers go with it to another interface, if they are used at all."""
        for each in self._ways:
            each.follow(name)

    def whose_servers(self) -> str | None:
        """Return the tunnel whose servers are used; None where there is none."""
        return next((name for each in self._ways if (name := each.whose()) is not None), None)

    def restore_servers(self, name: str) -> bool:
        """Put back what there was before that tunnel's; tell whether there was anything to."""
        restored = [each.restore(name) for each in reversed(self._ways)]
        return any(restored)

    def restore_unrecorded(self, servers: Sequence[str]) -> bool:
        """Have these forgotten where a record is damaged; tell if one was. Raises IPsecError."""
        return self._resolved.restore_unrecorded(servers)

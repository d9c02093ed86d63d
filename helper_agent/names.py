"""Names of tunnels and blocks: whose each becomes, one thing at a time, until nothing is left.

A name has an owner before there is anything of it, and as long as there may be.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from carnet.errors import IPsecError
from carnet.ipsec import block
from carnet.ipsec.driver import Driver, Telling
from carnet.ipsec.inside import Inside
from helper_agent.claims import Held, Holding, holdings
from helper_agent.inner import Inner
from helper_agent.owners import Owners


class Names:
    """Those of users, and what of them there is on this machine. For several threads."""

    def __init__(self, driver: Driver, owners: Owners, inside: Inside, inner: Inner) -> None:
        self._driver = driver
        self._owners = owners
        self._inside = inside
        self._inner = inner
        self._changed = threading.Condition()
        self._making: set[str] = set()
        """What has an owner, and perhaps nothing else yet."""
        self._kept: Counter[str] = Counter()
        """What may have something yet of which nothing is listed."""

    def check(self, wanted: Holding) -> None:
        """Refuse what claimed() would refuse to a new name. Raises IPsecError."""
        self.sweep()
        self._owners.check(wanted, self._others(wanted.uid, self._driver.installed()))

    @contextmanager
    def claimed(self, name: str, wanted: Holding) -> Iterator[None]:
        """Make a name hers, and what of it is made in here. Raises IPsecError."""
        self.sweep()
        try:
            with self.turn(name):
                names = self._driver.installed()
                installed, others = name in names, self._others(wanted.uid, names)
                names |= self.blocks()
                self._owners.claim(
                    name,
                    wanted,
                    taken=name in names,
                    installed=installed,
                    others=others,
                    names=names,
                )
                yield
        except IPsecError:
            self.sweep()
            raise

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Keep a name from being let go, and from being made anything else of, in here."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._making)
            self._making.add(name)
        try:
            yield
        finally:
            with self._changed:
                self._making.remove(name)
                self._changed.notify_all()

    def pass_through(self) -> None:
        """Return once nobody lets names go, or is just taking a turn."""
        with self._changed:
            pass

    def wait_for_turns(self, is_so: Callable[[], bool], seconds: float) -> None:
        """Wait until that is so, which the end of a turn makes it, but for so long at most."""
        with self._changed:
            self._changed.wait_for(is_so, seconds)

    @contextmanager
    def kept(self, name: str) -> Iterator[None]:
        """Keep a name from being let go in here, whatever else is done to it."""
        with self._changed:
            self._kept[name] += 1
        try:
            yield
        finally:
            with self._changed:
                self._kept -= Counter({name: 1})
            self.sweep()

    def sweep(self) -> None:
        """Let all go that has an owner and nothing else; what cannot be asked may have something.

        A call has left that, or a helper that was killed, or the daemon could not be asked as it
        went. No name becomes anybody's meanwhile.
        """
        with self._changed, suppress(IPsecError):
            idle = self._owners.names() - self._making - self._kept.keys()
            over = idle - self._left() if idle else frozenset()
            if over:
                self._inner.clear()
            for name in over:
                self._owners.forget(name)

    def blocks(self) -> frozenset[str]:
        """Return the names that have a block, by whichever packet filter. Raises IPsecError."""
        return block.names(map(self._owners.block, self._owners.names()))

    def _left(self) -> frozenset[str | None]:
        """Return the names of all that is left. Raises IPsecError."""
        return self._driver.installed() | self.blocks() | {self._inside.whose_servers()}

    def _others(self, uid: int, installed: frozenset[str]) -> list[Holding]:
        """Return what root's tunnels and blocks hold, and what others' tunnels are called.

        Root made its own past the helper. Of a session that was lost its block alone is left.

        A former helper did not write that down of its users'. Raises IPsecError.
        """
        owned = self._owners.names()
        made_by = map(self._owners.block, owned)
        closed = [
            Holding(0, blocks=(Held(each.networks, each.targets, each.hosts),))
            for name, each in block.held_back(made_by).items()
            if name not in owned
        ]
        return closed + self._tunnels_of_others(uid, installed, owned)

    def _tunnels_of_others(
        self, uid: int, installed: frozenset[str], owned: frozenset[str]
    ) -> list[Holding]:
        others = frozenset(each for each in installed if not self._owners.owns(uid, each))
        if not others or not isinstance(self._driver, Telling):
            return []
        leads = self._driver.leads()
        found = [each for name in leads.keys() & others - owned for each in holdings(leads[name])]
        named = [leads[name].identities for name in leads.keys() & others & owned]
        return found + [Holding(0, identities=each) for each in named]

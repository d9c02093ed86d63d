"""What waits for a peer: a tunnel that is brought up, or that takes leave of its Target."""

from collections.abc import Iterator
from contextlib import contextmanager

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from helper_agent.guard import Guard
from helper_agent.names import Names
from helper_agent.places import Places

_AGAIN_SECONDS = 1.0
"""Until what was ended as it was being brought up, and went on, is ended again."""


class Negotiating:
    """Each waits for its place, and is looked at when it is over. For several threads."""

    def __init__(self, driver: Driver, names: Names, guard: Guard) -> None:
        self._driver = driver
        self._names = names
        self._guard = guard
        self._places = Places(per_user=2, for_all=3, seconds=30.0)
        self._places_to_leave = Places(per_user=1, for_all=2, seconds=3.0)
        """Apart, so that what is to end does not wait for what is to come up."""
        self._rising: set[str] = set()
        """What is being brought up."""

    @contextmanager
    def brought_up(self, uid: int, name: str) -> Iterator[None]:
        """Bring something up in here, as soon as a place is free and nothing else is done to it.

        Raises IPsecError.
        """
        try:
            with self._places.taken(uid), self._names.turn(name):
                self._rising.add(name)
                try:
                    with self._guard.apart(name):
                        yield
                finally:
                    self._rising.remove(name)
        except IPsecError:
            self._names.sweep()
            raise

    def cut_short(self, name: str) -> None:
        """End what is being brought up until that is over: its end is not to wait for a peer.

        It is ended again because the negotiation may only just have begun. Raises IPsecError.
        """
        while name in self._rising:
            self._driver.down(name)
            self._names.wait_for_turns(lambda: name not in self._rising, _AGAIN_SECONDS)

    @contextmanager
    def left(self, uid: int, name: str) -> Iterator[None]:
        """Take leave of something in here; what comes up for it keeps its name until it went."""
        with self._places_to_leave.taken(uid), self._names.kept(name), self._guard.apart(name):
            yield

"""Ending tunnels, each by the driver that brought it up: its record says which that was.

A machine may have several IPsec daemons installed. Whichever answers now need not be the one
that has a tunnel, and that may be gone, and come back.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver, Forgetful, Lead, TunnelStatus
from carnet.ipsec.drivers import Choice, driver_of, find_driver
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore

Found = TypeVar("Found")


class Ends(Protocol):
    """What ends tunnels, and tells which there are: a driver, or several as if they were one."""

    def take_leave(self, name: str) -> bool | None:
        """See Driver.take_leave()."""

    def down(self, name: str) -> None:
        """See Driver.down()."""

    def status(self) -> list[TunnelStatus]:
        """See Driver.status()."""

    def resumable(self) -> frozenset[str]:
        """See Driver.resumable()."""

    def installed(self) -> frozenset[str]:
        """See Driver.installed()."""


class ByRecord:
    """The drivers of all sessions on record; `usual` has what no record tells of.

    That is the one which is found, unless it is given. One that does not answer hides nothing of
    the others: troubles() tells whose it is.
    """

    def __init__(self, choice: Choice, usual: Driver | None = None) -> None:
        self._choice = choice
        self._usual = usual
        self._others: dict[str, Driver] = {}
        self._failed: dict[int, IPsecError] = {}

    def take_leave(self, name: str) -> bool | None:
        """End the Client's end of a tunnel so that Target knows."""
        return self._of(_record(name)).take_leave(name)

    def down(self, name: str) -> None:
        """End a tunnel and remove all of it."""
        self._of(_record(name)).down(name)

    def remind(self, name: str, lead: Lead) -> None:
        """See Forgetful.remind()."""
        driver = self._of(_record(name))
        if isinstance(driver, Forgetful):
            driver.remind(name, lead)

    def status(self) -> list[TunnelStatus]:
        """Report what stands by any of them."""
        return [live for answer in self._answers(lambda driver: driver.status()) for live in answer]

    def resumable(self) -> frozenset[str]:
        """Return what could come back by any of them."""
        return self._names(lambda driver: driver.resumable())

    def installed(self) -> frozenset[str]:
        """Return the names of all that any of them has."""
        return self._names(lambda driver: driver.installed())

    def _names(self, ask: Callable[[Driver], frozenset[str]]) -> frozenset[str]:
        return frozenset[str]().union(*self._answers(ask))

    def troubles(self) -> dict[str, IPsecError]:
        """Return the sessions, by name, whose driver has not answered all that it was asked."""
        sessions = SessionStore(memory_directory()).all() if self._failed else []
        failed = {each.name: self._failed.get(id(self._of(each))) for each in sessions}
        return {name: error for name, error in failed.items() if error is not None}

    def _answers(self, ask: Callable[[Driver], Found]) -> list[Found]:
        """Return what those say that answer. Raises IPsecError if none does, and one has to."""
        answers, failed = list[Found](), dict[int, IPsecError]()
        for driver, needed in self._all():
            try:
                answers.append(ask(driver))
            except IPsecError as error:
                if needed:
                    failed[id(driver)] = error
        if failed and not answers:
            raise next(iter(failed.values()))
        self._failed |= failed
        return answers

    def _all(self) -> list[tuple[Driver, bool]]:
        """Return the drivers, each with whether what it does not answer has to be known.

        Of sessions that are ended it has not: what is left of them may wait for a daemon that
        nobody starts again. Nor of what no record tells of, while there are others.
        """
        usual = self._of(None)
        sessions = SessionStore(memory_directory()).all()
        meant = [self._of(each) for each in sessions if not each.stage.is_ended]
        found = {id(self._of(each)): (self._of(each), False) for each in sessions}
        found.setdefault(id(usual), (usual, False))
        found |= {id(driver): (driver, True) for driver in meant or [usual]}
        return list(found.values())

    def _of(self, session: Session | None) -> Driver:
        name = session.driver if session is not None else None
        if name is None or self._choice.helper is not None:
            self._usual = self._usual or find_driver(self._choice)
            return self._usual
        if self._usual is not None and self._usual.name == name:
            return self._usual
        return self._others.setdefault(name, driver_of(self._choice, name))


def _record(name: str) -> Session | None:
    return SessionStore(memory_directory()).find(name)

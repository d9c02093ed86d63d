"""When the Host's HSM serves: one table, of three states.

The rules are those of `carnet.exchange.machine`: a row says to which state an event
leads, and what shall be done.
"""

from dataclasses import dataclass
from enum import StrEnum

from carnet.exchange.machine import Action, Event, Machine, Table


class State(StrEnum):
    """Where the Host stands with its HSM."""

    AWAY = "away"
    """Not logged in, and looked for again and again; no request gets a token operation."""
    IN_SERVICE = "in-service"
    SHUT_OUT = "shut-out"
    """The token does not take the PIN. It is not tried again, since tries are limited:
    an operator has to start the Host anew, with the right one."""


@dataclass(frozen=True)
class LoggedIn(Event):
    """The token is there and logged in to, its keys listed anew."""

    serial: str


@dataclass(frozen=True)
class StillAway(Event):
    """An attempt to log in failed, for now."""

    reason: str


@dataclass(frozen=True)
class PinRefused(Event):
    """An attempt to log in failed for the PIN."""

    reason: str


@dataclass(frozen=True)
class Lost(Event):
    """Session, token or module are gone, or do not answer."""

    reason: str


@dataclass(frozen=True)
class TellInService(Action):
    """Say so, and have done what waited for the HSM."""

    serial: str


@dataclass(frozen=True)
class TellAway(Action):
    """Say why it is not there; once for each reason."""

    reason: str


@dataclass(frozen=True)
class TellShutOut(Action):
    """Say, loudly and once, that a person has to come."""

    reason: str


@dataclass(frozen=True)
class LogInAgain(Action):
    """Close what is left, and look for the same token until it is there."""

    reason: str


_S = State

TABLE: Table[State] = {
    (_S.AWAY, LoggedIn): (_S.IN_SERVICE, lambda e: (TellInService(e.serial),)),
    (_S.AWAY, StillAway): (_S.AWAY, lambda e: (TellAway(e.reason),)),
    (_S.AWAY, PinRefused): (_S.SHUT_OUT, lambda e: (TellShutOut(e.reason),)),
    (_S.IN_SERVICE, Lost): (_S.AWAY, lambda e: (LogInAgain(e.reason),)),
}


def machine() -> Machine[State]:
    """Return an HSM that nobody has logged in to yet."""
    return Machine(TABLE, State.AWAY)

"""When the Host's HSM serves: one table, of three states.

The rules are those of `carnet.exchange.machine`: a row says to which state an event
leads, and what shall be done.
"""

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


class LoggedIn(Event, frozen=True):
    """The token is there and logged in to, its keys listed anew."""

    serial: str


class StillAway(Event, frozen=True):
    """An attempt to log in failed, for now."""

    reason: str


class PinRefused(Event, frozen=True):
    """An attempt to log in failed for the PIN."""

    reason: str


class Lost(Event, frozen=True):
    """Session, token or module are gone, or do not answer."""

    reason: str


class TellInService(Action, frozen=True):
    """Say so, and have done what waited for the HSM."""

    serial: str


class TellAway(Action, frozen=True):
    """Say why it is not there; once for each reason."""

    reason: str


class TellShutOut(Action, frozen=True):
    """Say, loudly and once, that a person has to come."""

    reason: str


class LogInAgain(Action, frozen=True):
    """Close what is left, and look for the same token until it is there."""

    reason: str


_S = State

TABLE: Table[State] = {
    (_S.AWAY, LoggedIn): (_S.IN_SERVICE, lambda e: (TellInService(e.serial),)),
    (_S.AWAY, StillAway): (_S.AWAY, lambda e: (TellAway(e.reason),)),
    (_S.AWAY, PinRefused): (_S.SHUT_OUT, lambda e: (TellShutOut(e.reason),)),
    (_S.IN_SERVICE, Lost): (_S.AWAY, lambda e: (LogInAgain(e.reason),)),
    (_S.IN_SERVICE, PinRefused): (_S.SHUT_OUT, lambda e: (TellShutOut(e.reason),)),
}


def machine() -> Machine[State]:
    """Return an HSM that nobody has logged in to yet."""
    return Machine(TABLE, State.AWAY)

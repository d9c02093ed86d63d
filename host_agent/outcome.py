"""How the Host answers whoever sent a request, for the HTTP side to say."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """A sealed response, and how long each step took (Server-Timing)."""

    response: bytes
    timing: str


@dataclass(frozen=True)
class Rejected:
    """The one answer that strangers get."""


@dataclass(frozen=True)
class Later:
    """Send the same bytes again; `reason` is a word of the protocol."""

    reason: str


@dataclass(frozen=True)
class Busy:
    """Over a limit: come again in so many seconds, whoever you are."""

    seconds: int


Outcome = Answered | Rejected | Later | Busy

"""What the demonstration claims, each with what was observed of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from lab.errors import LabError
from lab.waiting import wait_until

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Proof:
    """A claim, what was seen, and whether that is what the claim says."""

    claim: str
    observed: str
    holds: bool


class Proofs:
    """The claims in the order in which they were looked at."""

    def __init__(self) -> None:
        self.all: list[Proof] = []

    def see(self, claim: str, observed: str, *, holds: bool) -> None:
        """Write down a claim and what was observed."""
        self.all.append(Proof(claim, observed, holds))

    @property
    def hold(self) -> bool:
        """Whether every claim holds; none at all proves nothing."""
        return bool(self.all) and all(proof.holds for proof in self.all)


def in_time(look: Callable[[], Seen], holds: Callable[[Seen], bool]) -> Seen:
    """Return what is seen as soon as it holds; what was seen last where it never does.

    For what an agent does after it has answered: on a busy machine that is a while later.
    """
    seen = look()

    def holds_now() -> bool:
        nonlocal seen
        seen = look()
        return holds(seen)

    if not holds(seen):
        with suppress(LabError):
            wait_until(holds_now, "a claim to hold")
    return seen

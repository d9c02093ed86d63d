"""What the demonstration claims, each with what was observed of it."""

from dataclasses import dataclass


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

"""Which token is meant: serial numbers alone do not tell, for all TPMs have the same one."""

import hashlib
from typing import NamedTuple

from carnet import serials


class Identity(NamedTuple):
    """What a token is known by, once it was chosen."""

    serial: str
    label: str

    def __str__(self) -> str:
        """Return it as people are told of it."""
        return f"{self.label} (serial {self.serial})"

    def may_be(self, other: "Identity") -> bool:
        """Tell whether it is that token, as far as one can say without seeing all there are.

        OpenSC's label of a card that was pulled as it was read may be another than before.
        """
        same_label = self.label == other.label or serials.is_own(self.serial)
        return self.serial == other.serial and same_label

    @property
    def mark(self) -> str:
        """What the names of files that are kept of this token have in them."""
        known_by = self.serial if serials.is_own(self.serial) else f"{self.serial}\0{self.label}"
        return hashlib.sha256(known_by.encode()).hexdigest()[:16]


Selector = str | Identity | None
"""Which token to choose: a label or serial number, the very one that was chosen before, or any."""


def fitting(found: list[Identity], selector: Selector) -> list[bool]:
    """Tell of each token whether it is one that is meant."""
    if selector is None:
        return [True] * len(found)
    if isinstance(selector, str):
        return [selector in each for each in found]
    if selector in found:
        return [each == selector for each in found]
    return [selector.may_be(each) for each in found]


def called(selector: str | Identity) -> str:
    """Return what people are told of which token is meant."""
    return str(selector) if isinstance(selector, Identity) else repr(selector)

"""Which token is meant: serial numbers alone do not tell, for all TPMs have the same one."""

import hashlib
from typing import NamedTuple


class Identity(NamedTuple):
    """What a token is known by, once it was chosen."""

    serial: str
    label: str

    def __str__(self) -> str:
        """Return it as people are told of it."""
        return f"{self.label} (serial {self.serial})"

    @property
    def mark(self) -> str:
        """What the names of files that are kept of this token have in them."""
        return hashlib.sha256(f"{self.serial}\0{self.label}".encode()).hexdigest()[:16]


Selector = str | Identity | None
"""Which token to choose: a label or serial number, the very one that was chosen before, or any."""


def fits(selector: Selector, found: Identity) -> bool:
    """Tell whether a token is one that is meant."""
    if selector is None or isinstance(selector, Identity):
        return selector in (None, found)
    return selector in found


def called(selector: str | Identity) -> str:
    """Return what people are told of which token is meant."""
    return str(selector) if isinstance(selector, Identity) else repr(selector)

"""How a service is seen from outside, as its configuration file says: where, and in what form."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from carnet.config import Section

_NOWHERE = "off"


class LogForm(StrEnum):
    """How a service writes its log."""

    JSON = "json"
    """One object a line."""
    TEXT = "text"


@dataclass(frozen=True)
class Place:
    """Where observers come in: a Unix socket, an address and a port, or nowhere."""

    path: Path | None = None
    address: str = ""
    port: int = 0

    @classmethod
    def from_setting(cls, text: str, base: Path) -> Self:
        """Read `ADDRESS:PORT`, `[IPv6]:PORT`, a path, or `off`; raises ValueError."""
        if text == _NOWHERE:
            return cls()
        if "/" in text:
            return cls(path=base / text)
        split = urlsplit(f"//{text}")
        if not split.hostname or not split.port:
            raise ValueError("expected ADDRESS:PORT, the path of a Unix socket, or off")
        return cls(address=str(ip_address(split.hostname)), port=split.port)


class PlaceSetting:
    """A Place as a configuration file has it; no dataclass, which would be read as a table."""

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def from_setting(cls, text: str, base: Path) -> Self:
        """Read it; raises ValueError."""
        return cls(Place.from_setting(text, base))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlaceSetting) and other.place == self.place

    def __hash__(self) -> int:
        return hash(self.place)


class ObservationSection(Section, frozen=True, kw_only=True):
    """How the service is seen from outside."""

    listen: PlaceSetting | None = None
    """Left out: a Unix socket in the service's directory."""
    log: LogForm = LogForm.JSON

    def place(self, default: Place) -> Place:
        """Return where observers come in."""
        return self.listen.place if self.listen else default

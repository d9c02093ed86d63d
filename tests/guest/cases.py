"""What the matrix of objectives, modes and IP versions consists of, and how each is looked at."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.guest.addresses import BY_VERSION
from tests.guest.offices import OBJECTIVES, OpenOffice
from tests.guest.traffic import fetch


@dataclass(frozen=True)
class Case:
    """One line of the matrix: IP versions outside and inside the tunnel."""

    objective: str
    mode: str
    outer: int
    inner: int

    @property
    def goal(self) -> str:
        """Who has the file that is fetched."""
        return BY_VERSION[self.inner].target if self.alone else BY_VERSION[self.inner].server

    @property
    def alone(self) -> bool:
        return self.mode == "transport"

    @property
    def options(self) -> list[str]:
        where = ["--transport"] if self.alone else ["--network", BY_VERSION[self.inner].network]
        return ["--objective", self.objective, *where]

    @property
    def expected(self) -> str:
        """What is to be seen between the two outer addresses; the file's own TCP if that is."""
        inner = "" if self.alone else f"IPv{self.inner} "
        return {
            "native": "TCP",
            "ah": f"AH {inner}TCP",
            "esp": "ESP",
            "ah+esp": "AH ESP" if self.inner == self.outer else f"AH IPv{self.outer} ESP",
        }[self.objective]

    @property
    def ends(self) -> tuple[str, str]:
        addresses = BY_VERSION[self.outer]
        return addresses.client, self.goal if self.mode == "routed" else addresses.target

    @property
    def row(self) -> tuple[str, ...]:
        """The line of the matrix, once it was seen to be so."""
        return (
            self.objective,
            self.mode,
            f"IPv{self.outer}",
            f"IPv{self.inner}",
            self.expected,
        )

    def __str__(self) -> str:
        return f"{self.objective}-{self.mode}-{self.inner}-in-{self.outer}"


def cases(outer: int) -> Iterator[Case]:
    """Yield every case that there is with Target at an address of that IP version."""
    for objective in OBJECTIVES:
        yield Case(objective, "transport", outer, outer)
    yield Case("native", "routed", outer, outer)
    for objective in ("ah", "esp", "ah+esp"):
        for inner in (4, 6):
            yield Case(objective, "tunnel", outer, inner)


def check(office: OpenOffice, case: Case) -> dict:
    """Connect, fetch the file, look what passed meanwhile, and return the facts."""
    office.be_found_at(case.outer)
    with office.watched() as seen:
        facts = office.connect(*case.options)
        assert fetch(office.world.client, case.goal)
    assert (facts["virtual_address"] is None) is (case.mode != "tunnel")
    passed = seen.kinds(*case.ends)
    assert passed == {case.expected}, passed
    assert seen.readable is (case.objective in ("native", "ah"))
    return facts

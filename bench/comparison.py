"""What a benchmark row is: ours and a floor, measured in turn, and the ratio of the two.

Whatever slows a machine down slows both sides of a round, so a ratio says more than either
figure; those of two machines may differ all the same. Nothing here measures by itself or
writes anything.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Measure = Callable[[], float]
"""Measures one side once; returns the figure in the row's unit."""


@dataclass(frozen=True)
class Spread:
    """A median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(frozen=True)
class Aim:
    """What the ratio of ours to the floor, or their difference, shall be."""

    text: str
    """As people read it."""
    most: float | None = None
    """The ratio is at most this."""
    least: float | None = None
    """The ratio is at least this."""
    above: float | None = None
    """Ours is at most this much above the floor, in the row's unit."""
    limit: float | None = None
    """Ours is at most this, in the row's unit, whatever the floor is."""

    def is_met(self, judged: float) -> bool:
        """Tell whether this figure of a row meets it; raises ValueError where nothing is aimed at.

        What is judged is `Row.judged`: a ratio, a difference, or ours alone.
        """
        if self.least is not None:
            return judged >= self.least
        for limit in (self.most, self.above, self.limit):
            if limit is not None:
                return judged <= limit
        raise ValueError(f"Nothing is aimed at: {self.text}.")

    @property
    def is_one(self) -> bool:
        """Whether anything is aimed at."""
        aims = (self.most, self.least, self.above, self.limit)
        return any(each is not None for each in aims)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a report: two sides, round by round.

    Raises ValueError where the sides have no rounds, or not the same ones, or a floor is 0.
    """

    group: str
    """The table that it stands in."""
    name: str
    floor_name: str
    unit: str
    aim: Aim
    ours: tuple[float, ...]
    floor: tuple[float, ...]
    note: str = ""
    """What a reader has to know to read the figures."""
    measured: str = ""
    """When, in ISO 8601."""
    table: str = ""
    """What `--table` calls where it comes from; nothing in older reports."""
    machine: str = ""
    """On what it was measured; nothing where that was not kept."""
    commit: str = ""
    """Of what was measured; nothing where that was not kept."""

    def __post_init__(self) -> None:
        """Refuse what has no ratio."""
        if not self.ours or len(self.ours) != len(self.floor) or not all(self.floor):
            raise ValueError(f"Row {self.name!r} has no ratio in each round.")

    @property
    def ratio(self) -> Spread:
        """Ours for each 1 of the floor, round by round."""
        pairs = zip(self.ours, self.floor, strict=True)
        return Spread.of([ours / floor for ours, floor in pairs])

    @property
    def more_is_better(self) -> bool:
        """Whether a greater ratio is the better one: where a least one is aimed at, or of rates."""
        return self.aim.least is not None or self.unit.endswith("/s")

    @property
    def judged(self) -> Spread:
        """What the aim is for: ratio, difference from the floor, or ours; round by round."""
        if self.aim.above is not None:
            return Spread.of([a - b for a, b in zip(self.ours, self.floor, strict=True)])
        return self.ratio if self.aim.limit is None else Spread.of(self.ours)

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is met; None where there is none, or the quartiles are on both sides."""
        if not self.aim.is_one:
            return None
        low, high = (self.aim.is_met(each) for each in (self.judged.low, self.judged.high))
        return low if low is high else None

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON has it, the single rounds included."""
        return {
            **asdict(self),
            "ours": list(self.ours),
            "floor": list(self.floor),
            "median": {
                "ours": Spread.of(self.ours).median,
                "floor": Spread.of(self.floor).median,
            },
            "ratio": asdict(self.ratio),
            "more_is_better": self.more_is_better,
            "met": self.is_met,
        }


def in_turn(
    ours: Measure, floor: Measure, rounds: int, advance: Callable[[], None] = lambda: None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure ours, floor, ours, floor …; a first round, which warms up, is not counted."""
    taken: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        figures = ours(), floor()
        if number:
            taken.append(figures)
        advance()
    first, second = zip(*taken, strict=True)
    return first, second

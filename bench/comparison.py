"""What a benchmark row is: ours and a floor, measured in turn, and the ratio of the two.

Whatever slows the machine down slows both sides of a round, so a ratio says more than
either figure. Nothing here measures by itself or writes anything.
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

    def is_met(self, ratio: float, ours: float, floor: float) -> bool:
        """Tell whether these medians meet it; raises ValueError where nothing is aimed at.

        `ratio` is that of ours to the floor, within the rounds.
        """
        if self.most is not None:
            return ratio <= self.most
        if self.least is not None:
            return ratio >= self.least
        if self.above is not None:
            return ours - floor <= self.above
        if self.limit is not None:
            return ours <= self.limit
        raise ValueError(f"Nothing is aimed at: {self.text}.")

    @property
    def is_one(self) -> bool:
        """Whether anything is aimed at."""
        aims = (self.most, self.least, self.above, self.limit)
        return any(each is not None for each in aims)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a report: two sides, round by round."""

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
    def is_met(self) -> bool | None:
        """Whether the medians meet the aim; None where there is none."""
        if not self.aim.is_one:
            return None
        medians = (Spread.of(each).median for each in (self.ours, self.floor))
        return self.aim.is_met(self.ratio.median, *medians)

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

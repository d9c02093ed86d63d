"""Where the cost of a datagram steps up as it gets too large for one packet.

A cost per datagram is a straight line in its size, but for that step. All here is by medians,
so one size that lies apart, as one noisy measurement makes it, moves nothing.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

FROM, TO = 1340, 1600
"""Sizes among which a step is looked for, in bytes."""
NEAR = 8
"""Bytes from the edge within which datagrams on both sides of it are compared, round by round."""
_FEWEST = 3
"""Sizes on either side of a step."""
_STANDS_OUT = 3.0
"""Times the scatter: so large a step is one."""


def microseconds(size: int, megabits: float) -> float:
    """Return what each datagram of that size takes at that throughput."""
    return 8 * size / megabits


@dataclass(frozen=True)
class Step:
    """Two parallel lines through costs by size."""

    after: int
    """The last size on the first line, in bytes."""
    rise: float
    """From the first line to the second one, in microseconds."""
    scatter: float
    """How far a cost is from its line, in the median, in microseconds."""
    distance: float
    """Of all costs from their lines, added up, but for the one that is farthest."""

    @property
    def stands_out(self) -> bool:
        """Whether it is more than scatter."""
        return self.rise > _STANDS_OUT * self.scatter


def steps(sizes: Sequence[int], costs: Sequence[float]) -> list[Step]:
    """Return the steps that there may be, by where they are; none where sizes are too few."""
    points = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if FROM <= size <= TO]
    places = range(_FEWEST, len(points) - _FEWEST + 1)
    return [_step(points[:place], points[place:]) for place in places]


def likeliest(found: Sequence[Step]) -> Step:
    """Return the one whose lines the costs are nearest to."""
    return min(found, key=lambda step: step.distance)


def _step(small: Sequence[tuple[int, float]], large: Sequence[tuple[int, float]]) -> Step:
    pairs = [pair for side in (small, large) for pair in combinations(side, 2)]
    slope = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)
    flat = [[cost - slope * size for size, cost in side] for side in (small, large)]
    levels = [statistics.median(side) for side in flat]
    off = sorted(
        abs(cost - level) for side, level in zip(flat, levels, strict=True) for cost in side
    )
    return Step(small[-1][0], levels[1] - levels[0], statistics.median(off), sum(off[:-1]))

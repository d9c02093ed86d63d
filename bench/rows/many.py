"""Target's operations with many sessions, next to the same with few."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.child import child
from bench.comparison import Aim, Row
from bench.plan import Plan

GROUP = "Target with many sessions"
_AIM = Aim("at most 100 ms", limit=100)
_FEW = (10, 2)
"""Sessions, and how many of them live."""
_WHAT = {
    "list": "list the tunnels, with what the IKE daemon says of each",
    "expire": "end one whose time is over",
    "revoke": "end one that its Host revokes",
}


def rows(plan: Plan) -> Iterator[Row]:
    """Measure all of it at both Targets in turn."""
    size, rounds = (plan.size(1_000, 100), plan.size(200, 20)), plan.rounds(5)
    with (
        _target(plan, *size) as many,
        _target(plan, *_FEW) as few,
        plan.progress("many sessions", rounds + 1) as advance,
    ):
        taken = []
        for number in range(rounds + 1):
            figures = many(), few()
            if number:
                taken.append(figures)
            advance()
    for what, name in _WHAT.items():
        yield Row(
            group=GROUP,
            name=f"{name}; {_told(*size)}",
            floor_name=_told(*_FEW),
            unit="ms",
            aim=_AIM,
            ours=tuple(ours[what] for ours, _ in taken),
            floor=tuple(floor[what] for _, floor in taken),
        )


@contextmanager
def _target(plan: Plan, sessions: int, live: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Have such a Target; give what measures there once, and returns milliseconds."""
    arguments = (str(sessions), str(live))
    with child("bench.many_process", *arguments, log=plan.place() / "many.log") as (_, ask):
        yield ask


def _told(sessions: int, live: int) -> str:
    return f"{sessions:,} sessions, {live} live"

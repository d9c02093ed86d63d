"""`carnet connect` where Host and Target are a round-trip time away, in the guest kernel.

The floor is taken where they are some way off already: the guest has one processor, and what
Host and Target do after their answers delays a step that never waits, and no other.
"""

from collections.abc import Iterator, Sequence

from bench.comparison import Aim, Row, Spread
from bench.distance_guest import MIDDLE, NEAR, STEPS, WARMING
from bench.in_guest import Errand, Figures, measured
from bench.plan import Plan

GROUP = "Connecting from afar, in the guest kernel"
_FARTHEST = 100
"""Milliseconds of a round trip."""
_NEEDED = {"8": 2, "9": 3}
"""Round trips by step: TCP's and the request's; IKE_SA_INIT, IKE_AUTH, and the rekeying after
which the IKE_SA is protected by the post-quantum key too (RFC 8784 section 6)."""
_NAMES = {"8": "step 8, request and answer", "9": "step 9, IKE"}


def rows(plan: Plan) -> Iterator[Row]:
    """Compare with the same steps without delay, and the round trips that there must be."""
    rounds, away = plan.rounds(7), (_FARTHEST,) if plan.quick else (20, _FARTHEST)
    count = rounds * (2 + len(away))
    order = " ".join(map(str, (rounds, *away)))
    errand = Errand("bench.distance_guest", order, pairs=count + 1 + WARMING)
    lines = measured(plan, "connect from afar", [errand], count + 1)
    for step in STEPS:
        for rtt in (NEAR, *away):
            yield _away(lines, step, rtt)
        yield _trips(lines, step)


def _away(lines: Sequence[Figures], step: str, rtt: int) -> Row:
    needed, more = _NEEDED[step], rtt - MIDDLE
    which = "and" if more > 0 else "less"
    return Row(
        group=GROUP,
        name=f"{_NAMES[step]}, {rtt} ms away",
        floor_name=f"the same at {MIDDLE} ms, {which} {needed} round trips of {abs(more)} ms",
        unit="ms",
        aim=Aim("to be seen") if rtt == NEAR else Aim("floor and 25 ms", above=25),
        ours=_column(lines, step, rtt),
        floor=tuple(each + needed * more for each in _column(lines, step, MIDDLE)),
        note=_idle(lines, rtt) if step == STEPS[-1] else "",
    )


def _idle(lines: Sequence[Figures], rtt: int) -> str:
    idle = Spread.of(_column(lines, "idle", rtt)).median
    return f"of the whole command the guest's one processor was idle for {idle:.0f} ms"


def _trips(lines: Sequence[Figures], step: str) -> Row:
    """Count the round trips that are waited for, by what a longer delay adds."""
    more = _FARTHEST - MIDDLE
    both = zip(_column(lines, step, _FARTHEST), _column(lines, step, MIDDLE), strict=True)
    trips = tuple((far - middle) / more for far, middle in both)
    seen = next(line for line in lines if line["what"] == "packets")
    return Row(
        group=GROUP,
        name=f"{_NAMES[step]}: round trips waited for, by what {more} ms more add",
        floor_name="those of the protocols",
        unit="round trips",
        aim=Aim("at most 1.2 times", most=1.2),
        ours=trips,
        floor=(float(_NEEDED[step]),) * len(trips),
        note=f"a capture of one connection has {seen['tcp']} TCP connection of the Client, "
        f"{seen['ike']} IKE requests of its own and {seen['ike_of_target']} of Target's",
    )


def _column(lines: Sequence[Figures], step: str, rtt: int) -> tuple[float, ...]:
    return tuple(x[step] for x in lines if x["what"] == "connect" and x["rtt"] == rtt)

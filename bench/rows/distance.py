"""`carnet connect` where Host and Target are a round-trip time away, in the guest kernel."""

from collections.abc import Iterator, Sequence

from bench.comparison import Aim, Row
from bench.distance_guest import NEAR, STEPS, WARMING
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
    count = rounds * (1 + len(away))
    order = " ".join(map(str, (rounds, *away)))
    errand = Errand("bench.distance_guest", order, pairs=count + 1 + WARMING)
    lines = measured(plan, "connect from afar", [errand], count + 1)
    for step in STEPS:
        for rtt in away:
            yield _away(lines, step, rtt)
        yield _trips(lines, step)


def _away(lines: Sequence[Figures], step: str, rtt: int) -> Row:
    needed = _NEEDED[step]
    return Row(
        group=GROUP,
        name=f"{_NAMES[step]}, {rtt} ms away",
        floor_name=f"the same at 0 ms, and {needed} round trips",
        unit="ms",
        aim=Aim("floor and 25 ms", above=25),
        ours=_column(lines, step, rtt),
        floor=tuple(each + needed * rtt for each in _column(lines, step, NEAR)),
    )


def _trips(lines: Sequence[Figures], step: str) -> Row:
    """Count the round trips that are waited for, by what the longest delay adds."""
    rtt = _FARTHEST
    both = zip(_column(lines, step, rtt), _column(lines, step, NEAR), strict=True)
    trips = tuple((away - here) / rtt for away, here in both)
    seen = next(line for line in lines if line["what"] == "packets")
    return Row(
        group=GROUP,
        name=f"{_NAMES[step]}: round trips waited for, by what {rtt} ms add",
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

"""`carnet connect` where Host and Target are a round-trip time away, in the guest kernel."""

from collections.abc import Iterator, Sequence

from bench.comparison import Aim, Row
from bench.distance_guest import ROUND_TRIPS
from bench.in_guest import Figures, measured
from bench.plan import Plan

GROUP = "Connecting from afar, in the guest kernel"
NEEDED = 5
"""Round trips: TCP's, the request's, IKE_SA_INIT, IKE_AUTH, and the rekeying after which the
IKE_SA is protected by the post-quantum key too (RFC 8784 section 6)."""


def rows(plan: Plan) -> Iterator[Row]:
    """Compare with the same connection without delay, and the round trips that there must be."""
    rounds = plan.rounds(7)
    lines = measured(
        plan, "connect from afar", "bench.distance_guest", str(rounds),
        pairs=rounds * len(ROUND_TRIPS) + 1, steps=rounds * len(ROUND_TRIPS) + 1,
    )  # fmt: skip
    near, *_ = ROUND_TRIPS
    at_hand = _column(lines, near)
    for rtt in ROUND_TRIPS[1:]:
        yield Row(
            group=GROUP,
            name=f"a round-trip time of {rtt} ms",
            floor_name=f"the same at 0 ms, and {NEEDED} round trips",
            unit="ms",
            aim=Aim("floor and 50 ms", above=50),
            ours=_column(lines, rtt),
            floor=tuple(each + NEEDED * rtt for each in at_hand),
        )
    yield _trips(lines, at_hand)


def _trips(lines: Sequence[Figures], at_hand: Sequence[float]) -> Row:
    """Count the round trips that are waited for, by what the longest delay adds."""
    rtt = ROUND_TRIPS[-1]
    seen = next(line for line in lines if line["what"] == "packets")
    return Row(
        group=GROUP,
        name=f"round trips waited for, by what {rtt} ms add",
        floor_name="those of the protocols",
        unit="round trips",
        aim=Aim("at most 1.1 times", most=1.1),
        ours=tuple((x - y) / rtt for x, y in zip(_column(lines, rtt), at_hand, strict=True)),
        floor=(float(NEEDED),) * len(at_hand),
        note=f"the capture has {seen['tcp']} TCP connection of the Client with one request, "
        f"{seen['ike']} IKE requests of its own and {seen['ike_of_target']} of Target's",
    )


def _column(lines: Sequence[Figures], rtt: int) -> tuple[float, ...]:
    return tuple(x["ms"] for x in lines if x["what"] == "connect" and x["rtt"] == rtt)

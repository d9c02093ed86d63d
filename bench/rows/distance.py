"""`carnet connect` where Host and Target are a round-trip time away, in the guest kernel.

The floor is that of a connection, in turn with it and as far away.
"""

from collections.abc import Iterator, Sequence

from bench.comparison import Aim, Row, Spread
from bench.distance_guest import STEPS, WARMING
from bench.in_guest import Errand, Figures, measured
from bench.plan import Plan

GROUP = "Connecting from afar, in the guest kernel"
_NEAR, _FAR, _FARTHEST = 0, 100, 300
"""Milliseconds of a round trip. From far on, all that Host and Target do after their answers is
done while the Client waits, so what the farthest adds to that are round trips and no work."""
_NEEDED = {"8": 2, "9": 3}
"""Round trips by step: TCP's and the request's; IKE_SA_INIT, IKE_AUTH, and the rekeying after
which the IKE_SA is protected by the post-quantum key too (RFC 8784 section 6)."""
_REKEYING = {"8": 0, "9": 1}
"""Those that the floor has not: its IKE_SA is not rekeyed."""
_NAMES = {"8": "step 8, request and answer", "9": "step 9, IKE"}


def rows(plan: Plan) -> Iterator[Row]:
    """Compare with the floor as far away, and count the round trips."""
    rounds = plan.rounds(5)
    shown = (_FAR,) if plan.quick else (_NEAR, 20, _FAR)
    order = " ".join(map(str, (rounds, *shown, _FARTHEST)))
    count = rounds * (len(shown) + 1)
    errand = Errand("bench.distance_guest", order, pairs=count + 1 + WARMING)
    lines = measured(plan, "connect from afar", errand, 2 * count + 1)
    for step in STEPS:
        for rtt in shown:
            yield _away(lines, step, rtt)
        yield _trips(lines, step)


def _away(lines: Sequence[Figures], step: str, rtt: int) -> Row:
    rekeying = f", and {rtt} ms for the rekeying" if rtt and _REKEYING[step] else ""
    return Row(
        group=GROUP,
        name=f"{_NAMES[step]}, {rtt} ms away",
        floor_name=f"{STEPS[step]} alone, as far away{rekeying}",
        unit="ms",
        aim=Aim("floor and 50 ms", above=50) if rtt == _FAR else Aim("to be seen"),
        ours=_column(lines, "connect", step, rtt),
        floor=tuple(x + _REKEYING[step] * rtt for x in _column(lines, "floor", step, rtt)),
        note=f"of the whole command {_idle(lines, rtt)}",
    )


def _idle(lines: Sequence[Figures], rtt: int) -> str:
    idle = Spread.of(_column(lines, "connect", "idle", rtt)).median
    return f"the guest's one processor was idle for {idle:.0f} ms"


def _trips(lines: Sequence[Figures], step: str) -> Row:
    """Count the round trips that are waited for, by what a longer delay adds."""
    more = _FARTHEST - _FAR
    sides = (_column(lines, "connect", step, rtt) for rtt in (_FARTHEST, _FAR))
    trips = tuple((farthest - far) / more for farthest, far in zip(*sides, strict=True))
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


def _column(lines: Sequence[Figures], what: str, name: str, rtt: int) -> tuple[float, ...]:
    return tuple(x[name] for x in lines if x["what"] == what and x["rtt"] == rtt)

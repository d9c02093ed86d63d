"""How long those wait who ask last, while a Host has most of what it carries."""

from collections.abc import Iterable, Iterator

from bench.comparison import Aim, Row, Spread
from bench.load import TRIES, Offered, closed_loop, open_loop, pooled, until_kept_up
from bench.plan import Plan
from bench.rows.host import new_host, p99_of_all

GROUP = "Host, under load"
_ALONE = 16
"""Requests of one Client, before the latencies are measured."""
_LOAD = 0.8
"""Of what one process carries, while the latencies are measured."""


def rows(plan: Plan) -> Iterator[Row]:
    """Measure p99 against p50 at four fifths of the rate that one process carries."""
    rounds, measured, hosts = plan.rounds(5), plan.size(192, 48), plan.size(3, 1)
    tries: list[list[Offered]] = []
    with plan.progress("Host at 80 % load", rounds * hosts) as advance:
        for _ in range(rounds * hosts):
            most = plan.size(TRIES, 1)
            tries.append(until_kept_up(lambda: _offered(plan, measured), most))
            advance()
    last = [each[-1] for each in tries]
    loads = [
        pooled([each.load for each in last[first : first + hosts]])
        for first in range(0, len(last), hosts)
    ]
    yield Row(
        group=GROUP,
        name="p99 at 80 % load",
        floor_name="p50 of the same",
        unit="ms",
        aim=Aim("at most 5 times", most=5),
        ours=tuple(load.percentile(99) for load in loads),
        floor=tuple(load.median for load in loads),
        note=f"{hosts} new Hosts a round, {measured} requests to each, counted from when one was "
        f"due, at four fifths of what another new Host carried just before, with as many pairs "
        f"left on its token: "
        f"{_median(x.rate for x in last)} requests/s, {_median(x.load.rate for x in last)} "
        f"answered, p50 of one Client alone {_median(x.alone for x in last)} ms; Host kept up in "
        f"{sum(x.kept_up for x in last)} of {len(last)}, and {sum(map(len, tries)) - len(last)} "
        f"times one was measured again that did not; {p99_of_all(loads)}",
    )


def _offered(plan: Plan, measured: int) -> Offered:
    """Offer a new Host four fifths of what another one carries."""
    # It uses up as many pairs: with fewer left a token takes less time.
    with new_host(plan, measured) as ((port, _), bodies):
        due = closed_loop([port], bodies, 8).paced(_LOAD)
    with new_host(plan, measured + _ALONE) as ((port, _), bodies):
        alone = closed_loop([port], bodies[measured:], 1).median
        return Offered(open_loop(port, bodies[:measured], due), measured / due[-1], alone)


def _median(values: Iterable[float]) -> str:
    return f"{Spread.of(list(values)).median:.1f}"

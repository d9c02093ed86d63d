"""How long those wait who ask last, while a Host has most of what it carries."""

from collections.abc import Iterable, Iterator, Sequence

from bench.comparison import Aim, Row, Spread
from bench.load import TRIES, Offered, closed_loop, open_loop, pooled, until_kept_up
from bench.plan import Plan
from bench.rows.host import new_host, p99_of_all

GROUP = "Host, under load"
_ALONE = 16
"""Requests of one Client before the latencies are measured, and as many after: a token takes
less time the fewer pairs it has, and so both are as many pairs away from the middle."""
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
    yield row(tries, hosts, measured)


def row(tries: Sequence[Sequence[Offered]], hosts: int, measured: int) -> Row:
    """Return the row, of the last try of each Host, with what all of them were in its note."""
    last = [each[-1] for each in tries]
    every = [each.load for some in tries for each in some]
    loads = [
        pooled([each.load for each in last[first : first + hosts]])
        for first in range(0, len(last), hosts)
    ]
    return Row(
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
        f"answered, p50 of one Client alone, before and after, "
        f"{_median(x.alone for x in last)} ms; Host kept up in "
        f"{sum(x.kept_up for x in last)} of {len(last)}, and {len(every) - len(last)} "
        f"times one was measured again that did not; {p99_of_all(loads)}; with those that were "
        f"thrown away {p99_of_all(every)}",
    )


def _offered(plan: Plan, measured: int) -> Offered:
    """Offer a new Host four fifths of what another one carries."""
    # It has as many pairs, and leaves as many: with fewer left a token takes less time.
    with new_host(plan, measured, left=_ALONE) as ((port, _), bodies):
        due = closed_loop([port], bodies, 8).paced(_LOAD)
    with new_host(plan, _ALONE + measured + _ALONE) as ((port, _), bodies):
        before = closed_loop([port], bodies[:_ALONE], 1)
        load = open_loop(port, bodies[_ALONE:-_ALONE], due)
        after = closed_loop([port], bodies[-_ALONE:], 1)
        return Offered(load, measured / due[-1], pooled([before, after]).median)


def _median(values: Iterable[float]) -> str:
    return f"{Spread.of(list(values)).median:.1f}"

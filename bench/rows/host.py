"""What a Host carries, next to the token operations of its requests in a bare loop."""

from collections.abc import Iterator
from functools import partial

from bench import host_process
from bench.bare_token import bare_token, module_with_tokens_in
from bench.comparison import Aim, Row, in_turn
from bench.host_process import Where
from bench.load import Load, closed_loop, open_loop
from bench.plan import Plan
from bench.rows import processes
from tests.host.real_host import sealed

GROUP = processes.GROUP
_CLIENTS = (1, 8, 64)
_FEW, _WARM_UP = 96, 32
"""Pairs on a token that has no more than a round uses up; and those used before it is measured."""


def rows(plan: Plan) -> Iterator[Row]:
    """Measure requests a second, latencies under load, and what more processes bring."""
    for clients in _CLIENTS:
        yield _rate(plan, clients)
    yield _rate_with_few_pairs(plan)
    yield _latency(plan)
    yield from processes.rows(plan)


def _rate(plan: Plan, clients: int) -> Row:
    rounds, size = plan.rounds(9), plan.size(96, 64)
    count = (rounds + 1) * size
    where = Where(plan.place())
    bodies = _bodies(where, count)
    with (
        bare_token(module_with_tokens_in(plan.place()), count) as floor,
        host_process.serving(where) as (port, _),
        plan.progress(f"Host, {clients} Clients", rounds + 1) as advance,
    ):
        ours, bare = in_turn(
            lambda: closed_loop([port], _take(bodies, size), clients).rate,
            partial(floor, size),
            rounds,
            advance,
        )
    return _of_one_process(
        f"one process, {clients} Clients in a closed loop",
        ours,
        bare,
        f"agree, sign, and destroy both halves, for each request; SQLite, SoftHSM2; "
        f"{count - size} pairs on the token, then ever fewer",
    )


def _rate_with_few_pairs(plan: Plan) -> Row:
    """Measure where SoftHSM2 takes least: what is ours weighs most."""
    rounds = plan.rounds(9)

    def ours() -> float:
        where = Where(plan.place())
        bodies = _bodies(where, _FEW + _WARM_UP)
        with host_process.serving(where) as (port, _):
            closed_loop([port], _take(bodies, _WARM_UP), 8)
            return closed_loop([port], _take(bodies, _FEW), 8).rate

    def bare() -> float:
        with bare_token(module_with_tokens_in(plan.place()), _FEW) as floor:
            return floor(_FEW)

    with plan.progress("Host, few pairs", rounds + 1) as advance:
        measured, floors = in_turn(ours, bare, rounds, advance)
    return _of_one_process(
        f"one process, 8 Clients, {_FEW} pairs on the token",
        measured,
        floors,
        f"a new Host each round; {_FEW} pairs on its token, then ever fewer",
    )


def _of_one_process(name: str, ours: tuple[float, ...], floor: tuple[float, ...], note: str) -> Row:
    return Row(
        group=GROUP,
        name=name,
        floor_name="the same token operations in a bare loop",
        unit="requests/s",
        aim=Aim("at least half", least=0.5),
        ours=ours,
        floor=floor,
        note=note,
    )


def _latency(plan: Plan) -> Row:
    """Measure p99 against p50 at four fifths of the rate that one process carries."""
    rounds, size = plan.rounds(9), plan.size(200, 100)
    directory = plan.place()
    bodies = _bodies(Where(directory), (rounds + 2) * size)
    loads: list[Load] = []
    with (
        host_process.serving(Where(directory)) as (port, _),
        plan.progress("Host at 80 % load", rounds) as advance,
    ):
        closed_loop([port], _take(bodies, size), 8)
        rate = 0.8 * closed_loop([port], _take(bodies, size), 8).rate
        for _ in range(rounds):
            loads.append(open_loop(port, _take(bodies, size), rate))
            advance()
    return Row(
        group=GROUP,
        name="p99 at 80 % load",
        floor_name="p50 of the same",
        unit="ms",
        aim=Aim("at most 5 times", most=5),
        ours=tuple(load.percentile(99) for load in loads),
        floor=tuple(load.median for load in loads),
        note=f"{rate:.0f} requests a second, each counted from when it was due",
    )


def _bodies(where: Where, count: int) -> Iterator[bytes]:
    """Fill a Host with so many pairs; return a request of each."""
    keys = host_process.filled(where, count)
    return iter([sealed(key) for key in keys])


def _take(bodies: Iterator[bytes], count: int) -> list[bytes]:
    return [next(bodies) for _ in range(count)]

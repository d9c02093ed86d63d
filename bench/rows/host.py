"""What a Host carries, next to the token operations of its requests in a bare loop."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from bench import host_process
from bench.bare_token import bare_token, module_with_tokens_in
from bench.comparison import Aim, Row, in_turn
from bench.host_process import Served, Where
from bench.load import Load, closed_loop, pooled
from bench.plan import Plan
from bench.rows import processes
from tests.host.real_host import sealed

GROUP = processes.GROUP
_DATABASE, _TOKEN, _REST = "the Key Database", "the token, HPKE and COSE", "HTTP and the rest"
_THREADS = {"asyncio_": _DATABASE, "reading_": _DATABASE, "hsm": _TOKEN}
"""What the threads whose names begin so are for."""


def rows(plan: Plan) -> Iterator[Row]:
    """Measure requests a second, where a request's time goes, and what more processes bring."""
    measured = plan.size(96, 48)
    for clients in (8,) if plan.quick else (1, 8, 64):
        yield from _closed(plan, clients, measured, left=0)
    if not plan.quick:
        yield from _processor(plan, measured)
        yield from _closed(plan, 8, measured, left=900)
        yield from processes.rows(plan)


def _closed(plan: Plan, clients: int, measured: int, *, left: int) -> Iterator[Row]:
    """Measure so many requests; so many more pairs are on the token, and stay there."""
    rounds, tokens = plan.rounds(5), plan.size(1 if left else 4, 1)
    name = f"one process, {clients} Client{'s' if clients > 1 else ''} in a closed loop"
    if left:
        name += f", {left} pairs more on the token"
    loads: list[Load] = []

    def ours() -> float:
        with new_host(plan, measured, left=left) as ((port, _), bodies):
            loads.append(closed_loop([port], bodies, clients))
        return loads[-1].rate

    def bare() -> float:
        # A loop over one token is over in a fraction of a second, which says little.
        seconds = 0.0
        for _ in range(tokens):
            with bare_token(module_with_tokens_in(plan.place()), measured + left) as floor:
                seconds += measured / floor(measured)
        return tokens * measured / seconds

    with plan.progress(name, rounds + 1) as advance:
        rates, floors = in_turn(ours, bare, rounds, advance)
    medians = tuple(load.median for load in loads[1:])  # the first round is not counted
    slowest = tuple(max(load.latencies) for load in loads[1:])
    operations = tuple(clients * 1000 / floor for floor in floors)
    yield Row(
        group=GROUP,
        name=name,
        floor_name="the same token operations in a bare loop",
        unit="requests/s",
        aim=Aim("at least half", least=0.5),
        ours=rates,
        floor=floors,
        note=f"agree, sign, and destroy both halves, for each of {measured} requests; a new "
        f"token each time, SQLite, SoftHSM2",
    )
    yield _waited(f"{name}: p50", "the token operations of all who wait", medians, operations)
    yield _waited(
        f"{name}: slowest of {measured}", "p50 of the same", slowest, medians, p99_of_all(loads[1:])
    )


def _waited(
    name: str, than: str, ours: tuple[float, ...], floor: tuple[float, ...], note: str = ""
) -> Row:
    return Row(
        group=GROUP, name=name, floor_name=than, unit="ms", aim=Aim("to be seen"), ours=ours,
        floor=floor, note=note,
    )  # fmt: skip


def p99_of_all(loads: Sequence[Load]) -> str:
    """Say p99 of all rounds: in one round it is of two requests at most."""
    of_all = pooled(loads)
    late = of_all.percentile(99)
    return (
        f"p99 of all {len(of_all.latencies)} requests is {late:.0f} ms, "
        f"{late / of_all.median:.1f} times their p50"
    )


def _processor(plan: Plan, measured: int) -> Iterator[Row]:
    """Measure the processor time of a request, and which of Host's threads it goes to."""
    rounds = plan.rounds(5)
    taken: list[dict[str, float]] = []

    def ours() -> float:
        with new_host(plan, measured) as ((port, thread_times), bodies):
            before = thread_times()
            closed_loop([port], bodies, 8)
            taken.append(parts(before, thread_times(), measured))
        return sum(taken[-1].values())

    def bare() -> float:
        with bare_token(module_with_tokens_in(plan.place()), measured) as floor:
            before = time.process_time()
            floor(measured)
            return 1000 * (time.process_time() - before) / measured

    with plan.progress("processor time of a request", rounds + 1) as advance:
        whole, floors = in_turn(ours, bare, rounds, advance)
    name = "processor time of a request"
    yield _waited(name, "the token operations alone", whole, floors)
    for part in taken[0]:
        column = tuple(each[part] for each in taken[1:])
        yield _waited(f"{name}: {part}", "all of it", column, whole)


def parts(
    before: Mapping[str, float], after: Mapping[str, float], requests: int
) -> dict[str, float]:
    """Return the milliseconds of each request by what the threads are for."""
    found = dict.fromkeys((_DATABASE, _TOKEN, _REST), 0.0)
    for thread, milliseconds in after.items():
        which = next((part for begin, part in _THREADS.items() if thread.startswith(begin)), _REST)
        found[which] += (milliseconds - before.get(thread, 0.0)) / requests
    return found


@contextmanager
def new_host(plan: Plan, measured: int, left: int = 0) -> Iterator[tuple[Served, list[bytes]]]:
    """Serve a Host that is warm; give it, and a request of so many of its pairs."""
    where = Where(plan.place())
    keys = host_process.filled(where, measured + processes.WARM_UP + left)
    with host_process.serving(where) as served:
        closed_loop([served.port], [sealed(key) for key in keys[measured + left :]], 8)
        yield served, [sealed(key) for key in keys[:measured]]

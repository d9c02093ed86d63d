"""What more processes of one Host bring, on one token and one database."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bench import abreast, database_process, host_process, token_process
from bench.comparison import Aim, Row, Spread, in_turn
from bench.host_process import Where
from bench.load import closed_loop
from bench.plan import Plan
from lab.postgresql import postgres_machine
from tests.host.real_host import sealed

GROUP = "Host"
_PROCESSES = (2, 4)
_CLIENTS = 16
_TOKENS = 4
"""In a round of the token alone."""
_NEARLY = 0.9
"""Of what cores and token would allow, more processes shall bring."""
WARM_UP = 32
"""Requests of each process before it is measured: the first ones take longer."""

NewPlace = Callable[[], AbstractContextManager[Where]]
"""Makes the place of a Host that there was not before."""


def rows(plan: Plan) -> Iterator[Row]:
    """Measure some processes against one, on both databases, and on the token alone."""

    @contextmanager
    def in_sqlite() -> Iterator[Where]:
        yield Where(plan.place())

    with postgres_machine() as machine:
        server = machine.start()

        @contextmanager
        def in_postgresql() -> Iterator[Where]:
            with server.database() as name:
                yield Where(plan.place(), server.url(name), server.password_file)

        for count in _PROCESSES:
            alone = _token_alone(plan, count)
            token = Spread.of(alone.ours).median
            for kind, new_place in (("SQLite", in_sqlite), ("PostgreSQL", in_postgresql)):
                yield _host(plan, count, kind, new_place, token)
                yield _database_alone(plan, count, kind, new_place)
            yield alone


def aim_beside(token: float, host: float, count: int, idle: float) -> Aim:
    """Return what so many processes should bring: as much as cores, or as the token carries.

    Given the requests a second of the token alone in so many processes, and of a Host in one,
    and for which share of the time all processors were idle meanwhile: Clients and a database's
    server are on the same ones.
    """
    most = min(count, os.cpu_count() or 1, token / host, 1 / (1 - idle))
    least = round(_NEARLY * most, 2)
    return Aim(f"with the cores until these or the token limit: at least {least:.2f}", least=least)


def _host(plan: Plan, count: int, kind: str, new_place: NewPlace, token: float) -> Row:
    """Measure with a new Host each time: SoftHSM2 takes longer the more keys it has."""
    rounds, size = plan.rounds(5), 128
    name = f"{count} processes, {kind}, {_CLIENTS} Clients"
    idle: dict[int, list[float]] = {1: [], count: []}

    def rate(processes: int) -> float:
        with new_place() as where, ExitStack() as stack:
            first = processes * WARM_UP
            bodies = [sealed(key) for key in host_process.filled(where, first + size)]
            ports = [stack.enter_context(host_process.serving(where))[0] for _ in range(processes)]
            closed_loop(ports, bodies[:first], _CLIENTS)
            before = _processor_times()
            load = closed_loop(ports, bodies[first:], _CLIENTS)
            idle[processes].append(_idle_share(before, _processor_times()))
            return load.rate

    with plan.progress(name, rounds + 1) as advance:
        ours, one = in_turn(lambda: rate(count), lambda: rate(1), rounds, advance)
    share = {processes: Spread.of(shares).median for processes, shares in idle.items()}
    return Row(
        group=GROUP,
        name=name,
        floor_name="one process",
        unit="requests/s",
        aim=aim_beside(token, Spread.of(one).median, count, share[1]),
        ours=ours,
        floor=one,
        note=f"one SoftHSM2 token and one database for all, {size} pairs in each; the Clients "
        f"are on the same processors, which were idle {share[1]:.0%} of the time with one "
        f"process and {share[count]:.0%} with {count}",
    )


def _token_alone(plan: Plan, count: int) -> Row:
    """Measure what more processes bring on the token itself: no Host's code is in it."""
    size = 96

    def rate(processes: int) -> float:
        # One token is used up in a fraction of a second, which says little.
        places = (plan.place() for _ in range(_TOKENS))
        return _TOKENS * size / sum(token_process.seconds(x, processes, size) for x in places)

    return _alone(
        plan,
        count,
        "the token",
        rate,
        Aim("none: SoftHSM2's own"),
        f"the same operations in a bare loop in each process, {size} on each of {_TOKENS} new "
        f"tokens, after {abreast.WARM_UP} of each process to warm up",
    )


def _database_alone(plan: Plan, count: int, kind: str, new_place: NewPlace) -> Row:
    """Measure what more processes bring at the Key Database, with no token and no Client."""

    def rate(processes: int) -> float:
        with new_place() as where:
            return database_process.rate(where, processes, 256)

    return _alone(
        plan,
        count,
        f"the Key Database on {kind}",
        rate,
        Aim("to be seen"),
        f"looked up, spent, answered and burned, in a loop in each process, on one thread, after "
        f"{abreast.WARM_UP} of each to warm up",
    )


def _alone(
    plan: Plan, count: int, what: str, rate: Callable[[int], float], aim: Aim, note: str
) -> Row:
    rounds = plan.rounds(5)
    name = f"{what} alone, {count} processes"
    with plan.progress(name, rounds + 1) as advance:
        ours, one = in_turn(lambda: rate(count), lambda: rate(1), rounds, advance)
    return Row(
        group=GROUP, name=name, floor_name="one process", unit="requests/s", aim=aim, ours=ours,
        floor=one, note=note,
    )  # fmt: skip


def _processor_times() -> list[int]:
    """Return what all processors did so far, by kind, in ticks (proc_stat(5))."""
    total, _ = Path("/proc/stat").read_text().split("\n", 1)
    return [int(field) for field in total.split()[1:9]]


def _idle_share(before: list[int], after: list[int]) -> float:
    spent = [late - early for early, late in zip(before, after, strict=True)]
    _user, _nice, _system, idle, waiting, *_ = spent
    return (idle + waiting) / max(1, sum(spent))

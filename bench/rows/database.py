"""What a request costs as the Key Database and the token fill."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from bench import host_process
from bench.bare_token import bare_token, module_with_tokens_in
from bench.comparison import Aim, Row, in_turn
from bench.host_process import Where
from bench.load import closed_loop
from bench.plan import Plan
from lab.postgresql import PostgresServer, postgres_machine
from tests.host.real_host import sealed
from tests.unit.examples import SoftwareKey

GROUP = "A request, as Host fills"
_AIM = Aim("at most 1.2 times", most=1.2)
_FEWEST_PAIRS, _FEWEST_KEYS = 1_000, 50
_REQUESTS = 12
"""In one round."""


def rows(plan: Plan) -> Iterator[Row]:
    """Compare with the smallest database and the smallest token, by a request's latency."""
    with postgres_machine() as machine:
        server = machine.start()
        for count in (20_000,) if plan.quick else (100_000, 1_000_000):
            for kind in ("SQLite", "PostgreSQL"):
                with _places(plan, server if kind == "PostgreSQL" else None) as (many, few):
                    yield _by_pairs(plan, kind, count, many, few)
    for count in (250,) if plan.quick else (500, 5_000):
        with _places(plan, None) as (many, few):
            yield _by_keys(plan, count, many, few)
        yield _token_alone(plan, count)


@contextmanager
def _places(plan: Plan, server: PostgresServer | None) -> Iterator[tuple[Where, Where]]:
    """Give the places of two Hosts, on this server or each with a file."""
    directories = [plan.place(), plan.place()]
    if server is None:
        yield Where(directories[0]), Where(directories[1])
        return
    with server.database() as one, server.database() as other:
        many, few = (
            Where(directory, server.url(name), server.password_file)
            for directory, name in zip(directories, (one, other), strict=True)
        )
        yield many, few


def _by_pairs(plan: Plan, kind: str, count: int, many: Where, few: Where) -> Row:
    needed = _needed(plan)
    bodies = [
        _bodies(host_process.filled(where, needed, others))
        for where, others in ((many, count - needed), (few, _FEWEST_PAIRS - needed))
    ]
    name = f"{count:,} pairs in {kind}"
    ours, floor = _latencies(plan, name, (many, few), bodies)
    return _row(name, f"{_FEWEST_PAIRS:,} pairs", ours, floor)


def _by_keys(plan: Plan, count: int, many: Where, few: Where) -> Row:
    bodies = [
        _bodies(host_process.filled(where, _needed(plan) + more))
        for where, more in ((many, count), (few, _FEWEST_KEYS))
    ]
    name = f"{count:,} keys on a SoftHSM2 token"
    ours, floor = _latencies(plan, name, (many, few), bodies)
    note = f"and {_needed(plan)} on each token, which the requests use up"
    return _row(name, f"{_FEWEST_KEYS} keys", ours, floor, note)


def _token_alone(plan: Plan, count: int) -> Row:
    """Measure what the token itself takes longer: no Host's code is in it."""
    rounds, name = plan.rounds(7), f"the token alone, {count:,} keys"
    module = module_with_tokens_in(plan.place())
    with ExitStack() as stack, plan.progress(name, rounds + 1) as advance:
        many, few = (
            stack.enter_context(bare_token(module, keys + _needed(plan)))
            for keys in (count, _FEWEST_KEYS)
        )
        ours, floor = in_turn(
            lambda: 1000 / many(_REQUESTS), lambda: 1000 / few(_REQUESTS), rounds, advance
        )
    return replace(
        _row(name, f"{_FEWEST_KEYS} keys", ours, floor, "a request's operations in a bare loop"),
        aim=Aim("none: SoftHSM2's own"),
    )


def _needed(plan: Plan) -> int:
    return (plan.rounds(7) + 1) * _REQUESTS


def _latencies(
    plan: Plan, name: str, places: tuple[Where, Where], bodies: list[Iterator[bytes]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    rounds = plan.rounds(7)
    with ExitStack() as stack, plan.progress(name, rounds + 1) as advance:
        ports = [stack.enter_context(host_process.serving(where))[0] for where in places]
        ours, floor = (
            partial(_median, port, of_this) for port, of_this in zip(ports, bodies, strict=True)
        )
        return in_turn(ours, floor, rounds, advance)


def _median(port: int, bodies: Iterator[bytes]) -> float:
    return closed_loop([port], [next(bodies) for _ in range(_REQUESTS)], 1).median


def _row(
    name: str, floor: str, ours: tuple[float, ...], other: tuple[float, ...], note: str = ""
) -> Row:
    return Row(
        group=GROUP, name=name, floor_name=floor, unit="ms", aim=_AIM, ours=ours, floor=other,
        note=note,
    )  # fmt: skip


def _bodies(keys: list[SoftwareKey]) -> Iterator[bytes]:
    return iter([sealed(key) for key in keys])

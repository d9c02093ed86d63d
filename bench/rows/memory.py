"""What memory a Host takes as it answers request after request.

A round is a new Host with key store `wrapped`, for which pairs are made quickly: first fresh
requests, each with all of a request's steps, then repeats, which get the stored answer.
Memory is no matter of time, so two rounds go on at once.
"""

import itertools
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event

from bench import token_memory
from bench.comparison import Aim, Row
from bench.load import closed_loop
from bench.plan import Plan
from bench.token_memory import resident_mebibytes
from carnet.progress import Advance
from tests.host.filled import filled_host
from tests.host.real_host import sealed

GROUP = "Memory of a Host"
_AT_ONCE = 2
"""Rounds."""
_CLIENTS = 4
_EACH = 50
"""Pairs of a traveller; the last two are left, so that his batch's key stays."""
_PORTION = 100
"""Requests between two samples; of repeats the first one is fresh, and the others repeat it."""
Samples = Sequence[tuple[int, float]]
"""MiB after so many requests."""


@dataclass(frozen=True)
class Sizes:
    """After how many requests memory is compared."""

    few: int
    fresh: int
    """So many are fresh, the few among them."""
    all: int

    @property
    def portions(self) -> int:
        """How many portions of repeats there are."""
        return (self.all - self.fresh) // _PORTION

    @property
    def pairs(self) -> int:
        """How many a round uses up."""
        return self.fresh + self.portions


def rows(plan: Plan) -> Iterator[Row]:
    """Compare the resident memory after very many requests with that after few."""
    sizes = Sizes(*((100, 300, 700) if plan.quick else (1_000, 10_000, 100_000)))
    rounds = plan.rounds(5)
    steps = rounds * (sizes.fresh // _PORTION + sizes.portions)
    with (
        plan.progress(f"memory, {sizes.all:,} requests", steps) as advance,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        stopped = Event()
        try:
            each = [pool.submit(_round, plan, sizes, advance, stopped) for _ in range(rounds)]
            wait(each, return_when=FIRST_EXCEPTION)
            taken = [future.result() for future in each]
        finally:
            # The pool waits for the rounds that go on, which are long.
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
    alone = [token_memory.kibibytes(plan.place(), sizes.few, sizes.fresh) for _ in range(rounds)]
    yield from compared(taken, alone, sizes)


def _round(plan: Plan, sizes: Sizes, advance: Advance, stopped: Event) -> Samples:
    """Return the memory of a new Host after each portion of requests, until it is stopped."""
    travellers = -(-sizes.pairs // (_EACH - 2))
    seen: list[tuple[int, float]] = []
    with filled_host(plan.place(), travellers, _EACH, sizes.pairs) as (port, keys, pid):
        left = map(sealed, keys)
        done = 0
        while done < sizes.all and not stopped.is_set():
            if done < sizes.fresh:
                closed_loop([port], list(itertools.islice(left, _PORTION)), _CLIENTS)
            else:
                body = next(left)
                closed_loop([port], [body], 1)
                closed_loop([port], [body] * (_PORTION - 1), _CLIENTS)
            done += _PORTION
            seen.append((done, resident_mebibytes(pid)))
            advance()
    return seen


def compared(taken: Sequence[Samples], alone: Sequence[float], sizes: Sizes) -> Iterator[Row]:
    """Give the rows of these rounds; `alone` is what the token itself keeps of a request."""
    after = {
        count: tuple(dict(samples)[count] for samples in taken)
        for count in (sizes.few, sizes.fresh, sizes.all)
    }
    yield _row(
        f"after {sizes.pairs:,} fresh requests and {sizes.all - sizes.pairs:,} repeats",
        f"after {sizes.few:,} fresh ones", after[sizes.all], after[sizes.few],
        f"resident, in key store `wrapped`; the first {sizes.fresh:,} are fresh, and of each "
        f"{_PORTION} after these one is, which the others repeat",
    )  # fmt: skip
    yield _row(
        f"after {sizes.all - sizes.fresh:,} more, {sizes.portions:,} of them fresh", "before them",
        after[sizes.all], after[sizes.fresh], _slopes(taken, sizes.fresh, sizes.all),
    )  # fmt: skip
    grown = tuple(
        1024 * (late - early) / (sizes.fresh - sizes.few)
        for late, early in zip(after[sizes.fresh], after[sizes.few], strict=True)
    )
    yield Row(
        group=GROUP, name="what a fresh request adds",
        floor_name="its token operations in a bare loop", unit="KiB", aim=Aim("to be seen"),
        ours=grown, floor=tuple(alone), note=_slopes(taken, sizes.few, sizes.fresh),
    )  # fmt: skip
    yield computed(after[sizes.few], grown, alone, sizes)


def computed(
    few: tuple[float, ...], grown: Sequence[float], alone: Sequence[float], sizes: Sizes
) -> Row:
    """Compute what memory would be if all requests were fresh, but for what the token keeps.

    `few` are MiB after the few; `grown` and `alone` KiB of each fresh request, at a Host and in
    the token.
    """
    more = (sizes.all - sizes.few) / 1024
    own = tuple(
        early + more * (grows - keeps)
        for early, grows, keeps in zip(few, grown, alone, strict=True)
    )
    whole = [early + more * grows for early, grows in zip(few, grown, strict=True)]
    times = statistics.median(late / early for late, early in zip(whole, few, strict=True))
    return _row(
        f"after {sizes.all:,} fresh ones, less what the token keeps",
        f"after {sizes.few:,} fresh ones", own, few,
        f"computed by what a fresh request adds; with what the token keeps it is "
        f"{statistics.median(whole):.0f} MiB, {times:.2f} times",
    )  # fmt: skip


def _row(
    name: str, floor: str, ours: tuple[float, ...], other: tuple[float, ...], note: str
) -> Row:
    return Row(
        group=GROUP, name=name, floor_name=floor, unit="MiB", ours=ours, floor=other, note=note,
        aim=Aim("flat: at most 1.1 times", most=1.1),
    )  # fmt: skip


def _slopes(taken: Sequence[Samples], begin: int, end: int) -> str:
    """Say how memory grew from one number of requests to another, in both halves of the way.

    A line through the samples of each half of each round; the median of the rounds.
    """
    middle = (begin + end) // 2
    halves = [
        statistics.median(_slope([x for x in samples if a <= x[0] <= b]) for samples in taken)
        for a, b in ((begin, middle), (middle, end))
    ]
    first, second = (f"{1024 * 1000 * slope:.1f}" for slope in halves)
    return (
        f"by a line through the samples it rises by {first} KiB in 1,000 requests in the first "
        f"half of them, and by {second} in the second"
    )


def _slope(samples: Samples) -> float:
    slope, _ = statistics.linear_regression(*zip(*samples, strict=True))
    return slope

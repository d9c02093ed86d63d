"""The paper's evaluation (its section 4): Table 5 and Figure 4, in the guest kernel.

A guest has one processor and holds both ends, so what a suite costs shows in the throughput
itself; each is set against objective native, measured in turn with it. Table 5 and Figure 4
have a guest each, one after the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench.comparison import Aim, Row, Spread
from bench.edge import NEAR, Step, likeliest, microseconds, steps
from bench.in_guest import (
    Errand,
    Figures,
    GuestFailedError,
    InterruptedInGuestError,
    measured,
)
from bench.paper_guest import BY_SIZE, NATIVE, PACE, PASSES, SUITES, Order, text_of
from bench.plan import Plan

GROUP = "Table 5 of the paper, in the guest kernel"
FIGURE = "Figure 4 of the paper, in the guest kernel"
UNITS = {
    "megabits": "Mbit/s",
    "nanoseconds_per_byte": "ns/byte",
    "cpu_share": "% of the processor",
}
"""Of Table 5: what the guest measures, and the unit in which it is told."""
PAPER_THROUGHPUT = {
    "AH-MD5-96": 91.0 / 92.6,
    "AH-SHA1-96": 91.2 / 92.6,
    "ESP-MD5-3DES": 53.9 / 92.6,
}
"""The paper's throughput for each 1 of native's, on 100 Mbit/s Ethernet."""
PAPER_CYCLES = {"AH-MD5-96": 3.79, "AH-SHA1-96": 6.19, "ESP-MD5-3DES": 15.95}
"""Its cycles per byte for each 1 of native's."""
PAPER_CPU = {
    "AH-MD5-96": 36.9 / 9.9,
    "AH-SHA1-96": 60.4 / 9.9,
    "ESP-MD5-3DES": 92.0 / 9.9,
}
"""Its system time usage for each 1 of native's."""
PAPER_PEAK = 1415
"""Bytes in a datagram at the peak of its Figure 4."""
_FINE = (1340, 1380, 1400, 1410, 1415, 1416, 1418, 1419, 1453, 1460, 1480)
"""Around the peak, with the paper's, and what would fit in tunnel mode."""
_EDGE = (1430, 1434, 1438, 1439, 1442, 1446)
"""On both sides of what fits: measured in more passes."""
_COARSE = (64, 128, 256, 512, 1024, 1600, 2000, 2500, 2900, 4000)

_ROUNDS = 5
_KEPT = 0.95
"""Of the pace, at least."""
_SOME = 0.5
"""Fragments of a datagram: fewer are of others."""
_MTU, _IPV4, _UDP = 1500, 20, 8
_SPI_AND_NUMBER, _PAD_LENGTH_AND_NEXT_HEADER = 8, 2
_OVERHEADS = {"ESP-MD5-3DES": (8, 8, 12), "ESP-AES256-GCM": (4, 8, 16)}
"""Bytes of a block, of the IV and of the ICV (RFC 2451, 2403; RFC 4106)."""


@dataclass(frozen=True)
class Curve:
    """One line of Figure 4."""

    suite: str
    sizes: tuple[int, ...]
    sent: tuple[Spread, ...]
    """Megabits a second, by size."""
    received: tuple[Spread, ...]
    native: tuple[Spread, ...] = ()
    """What is sent without IPsec, measured in turn with it; nothing in older reports."""
    of_native: tuple[Spread, ...] = ()
    """What is sent for each 1 of native, within the rounds."""
    fragments: tuple[float, ...] = ()
    """That the sender's kernel counts for a datagram, by size; nothing in older reports."""

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"peak": self.peak, "fits": self.fits}

    @property
    def fits(self) -> int:
        """The largest datagram that goes in one packet with what the suite adds, in bytes."""
        return _largest_datagram(*_OVERHEADS[self.suite])

    @property
    def steps(self) -> list[Step]:
        """Where the sender's cost of a datagram may step up; nothing where sizes are too few."""
        return self._steps(self.sent)

    @property
    def edge(self) -> Step | None:
        """The step at the size that fits; None where that was not measured."""
        return self._at_the_edge(self.steps)

    @property
    def native_rise(self) -> float:
        """How native steps at the size that fits, which is none to it: what noise makes of it."""
        there = self._at_the_edge(self._steps(self.native))
        return there.rise if there else 0.0

    @property
    def peak(self) -> int | None:
        """The size that fits, where the step there stands out; a larger one lowers the throughput.

        Not where native has half of such a step there, nor where one is likelier at a size that
        is not next to it.
        """
        found, there = self.steps, self.edge
        if there is None or not there.stands_out or there.rise <= 2 * self.native_rise:
            return None
        is_beside = abs(found.index(likeliest(found)) - found.index(there)) <= 1
        return self.fits if is_beside else None

    @property
    def in_one_packet(self) -> int | None:
        """The largest size of which the kernel makes no fragments; None where none were counted."""
        counted = zip(self.sizes, self.fragments, strict=False)
        return max((size for size, fragments in counted if fragments < _SOME), default=None)

    def _at_the_edge(self, found: Sequence[Step]) -> Step | None:
        return next((step for step in found if step.after == self.fits), None)

    def _steps(self, rates: Sequence[Spread]) -> list[Step]:
        pairs = list(zip(self.sizes, _medians(rates), strict=False))
        return steps([size for size, _ in pairs], [microseconds(*pair) for pair in pairs])


def _largest_datagram(block: int, iv: int, icv: int) -> int:
    """Return the payload of the largest UDP datagram in one ESP packet, transport mode, IPv4.

    RFC 4303 section 2: what is encrypted, with padding, pad length and next header, is a
    whole number of blocks.
    """
    room = _MTU - _IPV4 - _SPI_AND_NUMBER - iv - icv
    return room // block * block - _PAD_LENGTH_AND_NEXT_HEADER - _UDP


def measure(plan: Plan) -> tuple[Iterator[Row], list[Curve]]:
    """Boot the guests, and return what was measured there.

    A quick run has one suite of Table 5, and no Figure 4. Where a guest fails, or is
    interrupted, there is what was measured in whole, and after it the rows raise what ended it.
    """
    suites = plan.suites or (BY_SIZE[-1:] if plan.quick else tuple(each.name for each in SUITES))
    by_size = () if plan.quick else tuple(name for name in BY_SIZE if name in suites)
    rounds = plan.rounds(_ROUNDS)
    table = Order(rounds, seconds=plan.size(2, 1), sizes=(), suites=suites)
    sizes = tuple(sorted((*_COARSE, *_FINE)))
    figure = Order(rounds, seconds=0, sizes=sizes, edge=_EDGE, by_size=by_size)
    return _measured(plan, {"Table 5": table} | ({"Figure 4": figure} if by_size else {}))


def _measured(plan: Plan, orders: Mapping[str, Order]) -> tuple[Iterator[Row], list[Curve]]:
    lines: list[Figures] = []
    failure: BaseException | None = None
    for what, order in orders.items():
        errand = Errand("bench.paper_guest", text_of(order), _connections(order))
        try:
            lines += measured(plan, what, errand, _steps(order))
        except GuestFailedError as error:
            lines += error.lines
            failure = failure or error
        except KeyboardInterrupt as error:
            lines += error.lines if isinstance(error, InterruptedInGuestError) else []
            failure = error
            break
    rounds = plan.rounds(_ROUNDS)
    return _and_then(failure, _rows(lines, rounds)), list(_curves(lines, rounds))


def _connections(order: Order) -> int:
    return 1 + 2 * order.rounds * (len(order.suites) + len(order.by_size))


def _steps(order: Order) -> int:
    sizes = len(order.sizes) + PASSES * len(order.edge)
    return 2 * order.rounds * (len(order.suites) + len(order.by_size) * sizes)


def _and_then(failure: BaseException | None, rows: Iterable[Row]) -> Iterator[Row]:
    yield from rows
    if failure is not None:
        raise failure


def _rows(lines: Sequence[Figures], rounds: int) -> Iterator[Row]:
    for what, unit in UNITS.items():
        for suite in SUITES:
            ours, native = (
                tuple(each[what] for each in _of(lines, "table", suite.name, side))
                for side in (suite.name, NATIVE.name)
            )
            if len(native) == rounds:
                yield Row(
                    group=f"{GROUP}: {unit}", name=suite.name, floor_name="native", unit=unit,
                    aim=Aim(_aim(suite.name, what)), ours=ours, floor=native,
                    note=_pace(lines, suite.name) if what == "cpu_share" else "",
                )  # fmt: skip
    for name in BY_SIZE:
        yield from _figure_rows(lines, name, rounds)


def _pace(lines: Sequence[Figures], suite: str) -> str:
    """Say what came of the pace asked for: a suite that does not keep it uses all there is."""
    ours, native = (
        median(each["paced_megabits"] for each in _of(lines, "table", suite, side))
        for side in (suite, NATIVE.name)
    )
    told = f"at {PACE} Mbit/s asked for, of which {ours:.1f} came, and {native:.1f} natively"
    return told if ours >= _KEPT * PACE else f"{told}: not kept, so the share says nothing"


def _figure_rows(lines: Sequence[Figures], suite: str, rounds: int) -> Iterator[Row]:
    sent = list(_by_size(lines, suite, "sent_megabits", rounds))
    received = _by_size(lines, suite, "received_megabits", rounds)
    for done, columns in (("sent", sent), ("received", received)):
        for size, ours, native in columns:
            if all(native):
                yield _figure_row(suite, f"{size} bytes, {done}", "native", "Mbit/s", ours, native)
    sides = {
        suite: {size: _costs(size, ours) for size, ours, _ in sent},
        NATIVE.name: {size: _costs(size, native) for size, _, native in sent},
    }
    for side, costs in sides.items():
        small, large = _beside(costs, _largest_datagram(*_OVERHEADS[suite]))
        if small and large:
            yield _figure_row(
                suite, f"{side}: a datagram just too large for one packet of this suite, sent",
                "one just small enough", "microseconds", large, small,
            )  # fmt: skip


def _costs(size: int, rates: Sequence[float]) -> list[float]:
    return [microseconds(size, each) for each in rates]


def _figure_row(
    suite: str, name: str, floor: str, unit: str, ours: tuple[float, ...], other: tuple[float, ...]
) -> Row:
    return Row(
        group=f"{FIGURE}: {suite}", name=name, floor_name=floor, unit=unit,
        aim=Aim("none; to be seen"), ours=ours, floor=other,
    )  # fmt: skip


def _beside(
    costs: Mapping[int, Sequence[float]], fits: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the median cost of the sizes just below the edge, and just above, by round."""
    small = [column for size, column in costs.items() if 0 <= fits - size <= NEAR]
    large = [column for size, column in costs.items() if 0 < size - fits <= NEAR]
    first, second = (tuple(map(median, zip(*side, strict=True))) for side in (small, large))
    return first, second


def _aim(suite: str, what: str) -> str:
    known = {
        "megabits": PAPER_THROUGHPUT,
        "nanoseconds_per_byte": PAPER_CYCLES,
        "cpu_share": PAPER_CPU,
    }[what]
    return f"the paper has {known[suite]:.2f}" if suite in known else "not in the paper"


def _of(lines: Sequence[Figures], what: str, suite: str, side: str) -> list[Figures]:
    wanted = (what, suite, side)
    return [each for each in lines if (each["what"], each["suite"], each["side"]) == wanted]


def _by_size(
    lines: Sequence[Figures], suite: str, what: str, rounds: int
) -> Iterator[tuple[int, tuple[float, ...], tuple[float, ...]]]:
    """Yield each size that was measured in all rounds, in order, and both sides of it by round."""
    sides = (_of(lines, "figure", suite, side) for side in (suite, NATIVE.name))
    ours, native = (_columns(side, what) for side in sides)
    for size, column in sorted(native.items()):
        if len(column) == rounds * (PASSES if size in _EDGE else 1):
            yield size, tuple(ours[size]), tuple(column)


def _columns(lines: Sequence[Figures], what: str) -> dict[int, list[float]]:
    """Return by size what was measured round after round."""
    found: dict[int, list[float]] = defaultdict(list)
    for line in lines:
        found[line["size"]].append(line[what])
    return found


def _curves(lines: Sequence[Figures], rounds: int) -> Iterator[Curve]:
    for suite in BY_SIZE:
        sent = list(_by_size(lines, suite, "sent_megabits", rounds))
        received = list(_by_size(lines, suite, "received_megabits", rounds))
        fragments = list(_by_size(lines, suite, "fragments", rounds))
        if sent:
            yield Curve(
                suite=suite,
                sizes=tuple(size for size, _, _ in sent),
                sent=tuple(Spread.of(ours) for _, ours, _ in sent),
                received=tuple(Spread.of(ours) for _, ours, _ in received),
                native=tuple(Spread.of(native) for _, _, native in sent),
                of_native=tuple(_ratio(ours, native) for _, ours, native in sent),
                fragments=tuple(median(ours) for _, ours, _ in fragments),
            )


def _medians(spreads: Iterable[Spread]) -> list[float]:
    return [each.median for each in spreads]


def _ratio(ours: Sequence[float], native: Sequence[float]) -> Spread:
    return Spread.of([each / floor for each, floor in zip(ours, native, strict=True)])

"""The paper's evaluation (its section 4): Table 5 and Figure 4, in the guest kernel.

The guest has one processor and holds both ends, so what a suite costs shows in the
throughput itself; each is set against objective native, measured in turn with it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.comparison import Aim, Row, Spread
from bench.in_guest import Figures, measured
from bench.paper_guest import BY_SIZE, NATIVE, SUITES, Order, text_of
from bench.plan import Plan

GROUP = "Table 5 of the paper, in the guest kernel"
PAPER_THROUGHPUT = {
    "AH-MD5-96": 91.0 / 92.6,
    "AH-SHA1-96": 91.2 / 92.6,
    "ESP-MD5-3DES": 53.9 / 92.6,
}
"""The paper's throughput for each 1 of native's, on 100 Mbit/s Ethernet."""
_PAPER_CYCLES = {"AH-MD5-96": 3.79, "AH-SHA1-96": 6.19, "ESP-MD5-3DES": 15.95}
"""Its cycles per byte for each 1 of native's."""
_PAPER_CPU = {
    "AH-MD5-96": 36.9 / 9.9,
    "AH-SHA1-96": 60.4 / 9.9,
    "ESP-MD5-3DES": 92.0 / 9.9,
}
"""Its system time usage for each 1 of native's."""
PAPER_PEAK = 1415
"""Bytes in a datagram at the peak of its Figure 4."""
_FINE = (*range(1340, 1421, 20), 1430, 1438, 1439, 1446, 1460, 1480)
"""Around the peak."""
_COARSE = (64, 128, 256, 512, 768, 1024, 1200, 1600, 2000, 2500, 2800, 2900, 3200, 3600, 4000)

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

    def facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"peak": self.peak, "fits": self.fits}

    @property
    def fits(self) -> int:
        """The largest datagram that goes in one packet with what the suite adds, in bytes."""
        return _largest_datagram(*_OVERHEADS[self.suite])

    @property
    def peak(self) -> int:
        """The size before the greatest drop of the sender's throughput."""
        pairs = zip(self.sizes, self.sent, self.sent[1:], strict=False)
        return max(pairs, key=lambda each: each[1].median - each[2].median)[0]


def _largest_datagram(block: int, iv: int, icv: int) -> int:
    """Return the payload of the largest UDP datagram in one ESP packet, transport mode, IPv4.

    RFC 4303 section 2: what is encrypted, with padding, pad length and next header, is a
    whole number of blocks.
    """
    room = _MTU - _IPV4 - _SPI_AND_NUMBER - iv - icv
    return room // block * block - _PAD_LENGTH_AND_NEXT_HEADER - _UDP


def measure(plan: Plan) -> tuple[list[Row], list[Curve]]:
    """Boot a guest, and return what was measured there; raises LabError if it ends early.

    A quick run has one suite of Table 5, and no Figure 4.
    """
    suites = plan.suites or (BY_SIZE[-1:] if plan.quick else tuple(each.name for each in SUITES))
    by_size = [] if plan.quick else [name for name in BY_SIZE if name in suites]
    order = Order(
        rounds=plan.rounds(5), seconds=plan.size(2, 1), sizes=tuple(sorted((*_COARSE, *_FINE))),
        suites=suites, by_size=tuple(by_size),
    )  # fmt: skip
    lines = _in_guest(plan, order)
    return list(_rows(lines)), list(_curves(lines))


def _in_guest(plan: Plan, order: Order) -> Sequence[Figures]:
    steps = 2 * order.rounds * len(order.suites)
    connections = 1 + steps + len(order.by_size)
    steps += order.rounds * len(order.sizes) * len(order.by_size)
    return measured(
        plan, "Table 5 and Figure 4", "bench.paper_guest", text_of(order),
        pairs=connections, steps=steps,
    )  # fmt: skip


def _rows(lines: Sequence[Figures]) -> Iterator[Row]:
    for what, unit in (
        ("megabits", "Mbit/s"),
        ("nanoseconds_per_byte", "ns/byte"),
        ("cpu_share", "% of the processor"),
    ):
        for suite in SUITES:
            ours, native = (
                tuple(each[what] for each in _of(lines, suite.name, side))
                for side in (suite.name, NATIVE.name)
            )
            if ours:
                yield Row(
                    group=f"{GROUP}: {unit}", name=suite.name, floor_name="native", unit=unit,
                    aim=Aim(_aim(suite.name, what)), ours=ours, floor=native,
                )  # fmt: skip


def _aim(suite: str, what: str) -> str:
    known = {
        "megabits": PAPER_THROUGHPUT,
        "nanoseconds_per_byte": _PAPER_CYCLES,
        "cpu_share": _PAPER_CPU,
    }[what]
    return f"the paper has {known[suite]:.2f}" if suite in known else "not in the paper"


def _of(lines: Sequence[Figures], suite: str, side: str) -> list[Figures]:
    wanted = ("table", suite, side)
    return [each for each in lines if (each["what"], each["suite"], each["side"]) == wanted]


def _curves(lines: Sequence[Figures]) -> Iterator[Curve]:
    by_size: dict[str, dict[int, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    for each in lines:
        if each["what"] == "figure":
            by_size[each["suite"]][int(each["side"])].append(each)
    for suite, sizes in by_size.items():
        yield Curve(
            suite=suite,
            sizes=tuple(sizes),
            sent=tuple(Spread.of([x["sent_megabits"] for x in of]) for of in sizes.values()),
            received=tuple(
                Spread.of([x["received_megabits"] for x in of]) for of in sizes.values()
            ),
        )

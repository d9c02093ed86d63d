"""The pictures of a report, each as SVG and PNG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.comparison import Row, Spread
from bench.edge import FROM, TO
from bench.paper import (
    GROUP,
    PAPER_CPU,
    PAPER_CYCLES,
    PAPER_PEAK,
    PAPER_THROUGHPUT,
    UNITS,
    Curve,
)

TABLE_5, FIGURE_4 = "table-5", "figure-4"


@dataclass(frozen=True)
class _Panel:
    """One of the pictures of Table 5."""

    what: str
    """In UNITS."""
    label: str
    limits: Mapping[str, float]
    """Of its axis: native is 1."""
    paper: Mapping[str, float]
    of_paper: str


_PANELS = (
    _Panel(
        "megabits", "throughput", {"bottom": 0.003, "top": 1.5},
        PAPER_THROUGHPUT, "in the paper, on 100 Mbit/s Ethernet",
    ),
    _Panel(
        "nanoseconds_per_byte", "time for a byte", {"bottom": 1},
        PAPER_CYCLES, "in the paper, in cycles",
    ),
    _Panel(
        "cpu_share", "share of the processor", {"bottom": 1},
        PAPER_CPU, "in the paper, at what its wire carried",
    ),
)  # fmt: skip


def draw(directory: Path, rows: Sequence[Row], curves: Sequence[Curve]) -> list[str]:
    """Draw what there is to draw; return the names of the pictures, without endings."""
    panels = [panel for panel in _PANELS if _of(rows, panel)]
    drawn = []
    if panels:
        _picture(directory / TABLE_5, lambda figure: _table_5(figure, panels, rows))
        drawn.append(TABLE_5)
    if curves:
        _picture(directory / FIGURE_4, lambda figure: _lines(figure, curves))
        drawn.append(FIGURE_4)
    return drawn


def _picture(path: Path, fill: Callable[[Any], None]) -> None:
    import matplotlib as mpl  # noqa: PLC0415  takes long, and `make bench` alone installs it
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.use("agg")
    # The same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "carnet"
    figure = plt.figure(figsize=(9, 5), layout="constrained")
    fill(figure)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=120)
    plt.close(figure)


def _of(rows: Sequence[Row], panel: _Panel) -> list[Row]:
    return [row for row in rows if row.group == f"{GROUP}: {UNITS[panel.what]}"]


def _table_5(figure: Any, panels: Sequence[_Panel], rows: Sequence[Row]) -> None:
    """Draw the throughput, below it what a byte costs, which no wire limits, and the share."""
    figure.set_size_inches(9, 4.5 * len(panels))
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        _bars(axes, _of(rows, panel), panel.paper, panel.of_paper)
        axes.set_ylabel(f"{panel.label}, for each 1 of native")
        axes.set_yscale("log")
        axes.set_ylim(**panel.limits)


def _bars(axes: Any, rows: Sequence[Row], paper: Mapping[str, float], of_paper: str) -> None:
    places = range(len(rows))
    medians = [row.ratio.median for row in rows]
    below = [row.ratio.median - row.ratio.low for row in rows]
    above = [row.ratio.high - row.ratio.median for row in rows]
    axes.bar(places, medians, 0.6, yerr=(below, above), capsize=3, label="measured here")
    known = [(place, row.name) for place, row in enumerate(rows) if row.name in paper]
    axes.plot(
        [place for place, _ in known],
        [paper[name] for _, name in known],
        "kD",
        label=of_paper,
    )
    axes.set_xticks(places, [row.name for row in rows], rotation=25, ha="right")
    axes.legend()


def _lines(figure: Any, curves: Sequence[Curve]) -> None:
    """Draw the throughput, below it what that is for each 1 of native, and then the edge."""
    figure.set_size_inches(9, 11)
    axes, ratios, edge = figure.subplots(3, height_ratios=(4, 2, 3))
    ratios.sharex(axes)
    for curve in curves:
        _line(ratios, curve.sizes, curve.of_native, curve.suite)
        line = _line(axes, curve.sizes, curve.sent, f"{curve.suite}, sender")
        axes.plot(
            curve.sizes,
            [each.median for each in curve.received],
            "--",
            color=line.get_color(),
            label=f"{curve.suite}, receiver",
        )
    for fits in sorted({curve.fits for curve in curves}):
        axes.axvline(fits, color="black", linewidth=0.7, label=f"fits in one packet, {fits}")
    axes.axvline(PAPER_PEAK, color="black", linewidth=0.7, linestyle=":", label="the paper's peak")
    axes.set_ylabel("Mbit/s")
    axes.legend(loc="lower right")
    ratios.set_xlabel("bytes in a UDP datagram")
    ratios.set_ylabel("sent for each 1 of native")
    ratios.set_ylim(bottom=0)
    _around_the_edge(edge, curves)


def _around_the_edge(axes: Any, curves: Sequence[Curve]) -> None:
    """Draw once more what is sent around the edge, and natively, where it is none."""
    for curve in curves:
        line = _line(axes, curve.sizes, curve.sent, curve.suite)
        native = [each.median for each in curve.native]
        axes.plot(curve.sizes[: len(native)], native, ":", color=line.get_color())
        axes.axvline(curve.fits, color="black", linewidth=0.7)
    shown = [
        each.median
        for curve in curves
        for values in (curve.sent, curve.native)
        for size, each in zip(curve.sizes, values, strict=False)
        if FROM <= size <= TO
    ]
    axes.set_xlim(FROM, TO)
    axes.set_ylim(0, 1.1 * max(shown, default=1))
    axes.set_xlabel("bytes in a UDP datagram, around what fits")
    axes.set_ylabel("Mbit/s sent; dotted: native beside it")


def _line(axes: Any, sizes: Sequence[int], values: Sequence[Spread], label: str) -> Any:
    """Draw medians, and their quartiles around them; nothing where there are none."""
    sizes = sizes[: len(values)]
    (line,) = axes.plot(sizes, [each.median for each in values], label=label)
    axes.fill_between(
        sizes,
        [each.low for each in values],
        [each.high for each in values],
        color=line.get_color(),
        alpha=0.2,
    )
    return line

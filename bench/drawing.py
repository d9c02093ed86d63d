"""The pictures of a report, each as SVG and PNG."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.comparison import Row, Spread
from bench.edge import FROM, TO, microseconds
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
    # The same figures make the same PNG, and the same SVG but for the names of some clippings.
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
    """Draw the throughput, below it what that is for each 1 of native, and then each edge."""
    figure.set_size_inches(9, 15)
    whole, edges = figure.subfigures(2, height_ratios=(6, 8))
    axes, ratios = whole.subplots(2, height_ratios=(2, 1), sharex=True)
    for curve in curves:
        _line(ratios, *_at(curve.sizes, curve.of_native), curve.suite)
        _both_sides(axes, curve.sizes, curve, f"{curve.suite}, ")
    for each in (axes, ratios):
        each.axvspan(FROM, TO, color="black", alpha=0.08, linewidth=0, label="larger, below")
        each.set_ylim(bottom=0)
    axes.axvline(PAPER_PEAK, color="black", linewidth=0.7, linestyle=":", label="the paper's peak")
    axes.set_ylabel("Mbit/s")
    axes.legend(loc="upper left")
    ratios.set_xlabel("bytes in a UDP datagram")
    ratios.set_ylabel("sent for each 1 of native")
    for curve, column in zip(
        curves, edges.subfigures(1, len(curves), squeeze=False)[0], strict=True
    ):
        _around_the_edge(column, curve)


def _both_sides(axes: Any, sizes: Sequence[int], curve: Curve, of: str = "") -> None:
    """Draw the throughput at sender and receiver for these of a curve's sizes."""
    sent = _only(sizes, *_at(curve.sizes, curve.sent))
    line = _line(axes, *sent, f"{of}sender", ".-")
    at, received = _only(sizes, *_at(curve.sizes, curve.received))
    axes.plot(
        at,
        [each.median for each in received],
        ".--",
        markerfacecolor="white",
        color=line.get_color(),
        label=f"{of}receiver",
    )


def _at(sizes: Sequence[int], values: Sequence[Spread]) -> tuple[list[int], list[Spread]]:
    """Return sizes and values as far as there are both: older reports have none of some kinds."""
    return list(sizes[: len(values)]), list(values)


def _only(
    wanted: Sequence[int], sizes: Sequence[int], values: Sequence[Spread]
) -> tuple[list[int], list[Spread]]:
    """Return these sizes alone, with their values."""
    kept = [(size, value) for size, value in zip(sizes, values, strict=True) if size in wanted]
    return [size for size, _ in kept], [value for _, value in kept]


def _around_the_edge(figure: Any, curve: Curve) -> None:
    """Draw the throughput around the edge, and what a datagram costs there, natively as well."""
    near = [size for size in curve.sizes if FROM <= size <= TO]
    rates, *costs = figure.subplots(3, sharex=True)
    _both_sides(rates, near, curve)
    rates.set_title(curve.suite, fontsize="medium")
    rates.set_ylabel("Mbit/s")
    rates.legend(fontsize="small")
    sides = (("sent", curve.sent), ("native, in turn with it", curve.native))
    for axes, (side, values) in zip(costs, sides, strict=True):
        sizes, shown = _only(near, *_at(curve.sizes, values))
        _line(axes, sizes, [_cost(*each) for each in zip(sizes, shown, strict=True)], side, ".-")
        axes.set_title(side, fontsize="medium")
        axes.set_ylabel("microseconds a datagram")
    for axes in (rates, *costs):
        axes.axvline(curve.fits, color="black", linewidth=0.7)
    costs[-1].set_xlabel(f"bytes in a UDP datagram; up to {curve.fits} fit in one packet")


def _cost(size: int, rate: Spread) -> Spread:
    """Return what a datagram takes: the more, the lower the rate."""
    return Spread(*(microseconds(size, each) for each in (rate.median, rate.high, rate.low)))


def _line(
    axes: Any, sizes: Sequence[int], values: Sequence[Spread], label: str, style: str = "-"
) -> Any:
    """Draw medians, and their quartiles around them; nothing where there are none."""
    (line,) = axes.plot(sizes, [each.median for each in values], style, label=label)
    axes.fill_between(
        sizes,
        [each.low for each in values],
        [each.high for each in values],
        color=line.get_color(),
        alpha=0.2,
    )
    return line

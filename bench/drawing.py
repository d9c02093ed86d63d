"""The pictures of a report, each as SVG and PNG."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.comparison import Row
from bench.paper import PAPER_PEAK, PAPER_THROUGHPUT, Curve

TABLE_5, FIGURE_4 = "table-5", "figure-4"


def draw(directory: Path, rows: Sequence[Row], curves: Sequence[Curve]) -> list[str]:
    """Draw what there is to draw; return the names of the pictures, without endings."""
    throughput = [row for row in rows if row.unit == "Mbit/s"]
    drawn = []
    if throughput:
        _picture(directory / TABLE_5, lambda axes: _bars(axes, throughput))
        drawn.append(TABLE_5)
    if curves:
        _picture(directory / FIGURE_4, lambda axes: _lines(axes, curves))
        drawn.append(FIGURE_4)
    return drawn


def _picture(path: Path, fill: Callable[[Any], None]) -> None:
    import matplotlib as mpl  # noqa: PLC0415  takes long, and `make bench` alone installs it
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.use("agg")
    # The same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "carnet"
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    fill(axes)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=120)
    plt.close(figure)


def _bars(axes: Any, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    medians = [row.ratio.median for row in rows]
    below = [row.ratio.median - row.ratio.low for row in rows]
    above = [row.ratio.high - row.ratio.median for row in rows]
    axes.bar(places, medians, 0.6, yerr=(below, above), capsize=3, label="measured here")
    known = [(place, row.name) for place, row in enumerate(rows) if row.name in PAPER_THROUGHPUT]
    axes.plot(
        [place for place, _ in known],
        [PAPER_THROUGHPUT[name] for _, name in known],
        "kD",
        label="in the paper, on 100 Mbit/s Ethernet",
    )
    axes.set_xticks(places, [row.name for row in rows], rotation=25, ha="right")
    axes.set_ylabel("throughput for each 1 of native")
    axes.set_ylim(0, 1.05)
    axes.legend()


def _lines(axes: Any, curves: Sequence[Curve]) -> None:
    for curve in curves:
        (line,) = axes.plot(
            curve.sizes, [each.median for each in curve.sent], label=f"{curve.suite}, sender"
        )
        axes.fill_between(
            curve.sizes,
            [each.low for each in curve.sent],
            [each.high for each in curve.sent],
            color=line.get_color(),
            alpha=0.2,
        )
        axes.plot(
            curve.sizes,
            [each.median for each in curve.received],
            "--",
            color=line.get_color(),
            label=f"{curve.suite}, receiver",
        )
    for peak in sorted({curve.peak for curve in curves}):
        axes.axvline(peak, color="black", linewidth=0.7, label=f"greatest drop, {peak}")
    axes.axvline(PAPER_PEAK, color="black", linewidth=0.7, linestyle=":", label="the paper's peak")
    axes.set_xlabel("bytes in a UDP datagram")
    axes.set_ylabel("Mbit/s")
    axes.legend()

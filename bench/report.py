"""The report of a run, as people read it (Markdown) and as programs do (JSON)."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import click
import msgspec

from bench import closed
from bench.comparison import Row, Spread
from bench.drawing import draw
from bench.edge import likeliest, microseconds
from bench.paper import Curve

_HEAD = "| what | ours | floor | floor is | ratio | aim | |\n|---|---|---|---|---|---|---|\n"
_MACHINE = (
    "{kind} of each table, from {first} to {last}: {processors} processors, kernel {kernel}, "
    "Python {python}.\n"
)
_READING = (
    "Both sides of a row were measured in turn, round by round. Each figure is the median, with "
    "the quartiles in brackets; the ratio is that of ours to the floor within a round.\n"
)
_WORDS = {True: "met", False: "**missed**", None: ""}


class _Stored(msgspec.Struct):
    rows: list[Row]
    curves: list[Curve]


def facts(rows: Sequence[Row], curves: Sequence[Curve] = (), *, quick: bool) -> dict[str, Any]:
    """Return all of a run as JSON has it."""
    return {
        "quick": quick,
        "machine": {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        },
        "rows": [row.facts() for row in rows],
        "curves": [curve.facts() for curve in curves],
    }


def markdown(
    rows: Sequence[Row],
    curves: Sequence[Curve],
    pictures: Sequence[str],
    run: dict[str, Any],
    before: Sequence[closed.Closed] = (),
) -> str:
    """Return the report's text."""
    machine = run["machine"]
    kind = "Quick runs" if run["quick"] else "Whole runs"
    parts = [
        "# What Carnet takes, next to its floors\n",
        _MACHINE.format(kind=kind, **_span(rows), **machine),
        _READING,
    ]
    for group, members in groupby(rows, key=lambda row: row.group):
        parts.append(f"## {group}\n")
        parts.append(table(list(members)))
    if curves:
        parts.append("## Figure 4 of the paper, in the guest kernel\n")
        parts += [peak(curve) for curve in curves]
    if before:
        parts += ["## Before and after\n", closed.table(before, rows)]
    parts += [f"![{name}]({name}.svg)\n" for name in pictures]
    return "\n".join(parts)


def reading(rows: Sequence[Row]) -> str:
    """Say when the rows were measured, and how to read them."""
    return "Measured from {first} to {last}. ".format(**_span(rows)) + _READING


def update(
    directory: Path,
    rows: Sequence[Row],
    curves: Sequence[Curve],
    *,
    quick: bool,
    whole: bool = True,
) -> None:
    """Put rows and curves into the report that is there, in place of older ones.

    `whole`: they are all that there are of their tables.
    """
    older_rows, older_curves = stored(directory)
    lines = {curve.suite: curve for curve in (*older_curves, *curves)}
    if whole and curves:
        lines = {curve.suite: curve for curve in curves}
    write(directory, replaced(older_rows, rows, whole=whole), tuple(lines.values()), quick=quick)


def write(
    directory: Path, rows: Sequence[Row], curves: Sequence[Curve] = (), *, quick: bool
) -> None:
    """Write both forms into the directory, and the pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    run = facts(rows, curves, quick=quick)
    # First, and at once: whatever comes after may fail, and may be interrupted.
    new = directory / "report.json.new"
    new.write_text(json.dumps(run, indent=1) + "\n")
    new.replace(directory / "report.json")
    pictures = draw(directory, rows, curves)
    before = closed.kept(directory)
    (directory / "report.md").write_text(markdown(rows, curves, pictures, run, before))


def as_json(rows: Sequence[Row], curves: Sequence[Curve] = (), *, quick: bool) -> str:
    """Return the facts of a run as JSON."""
    return json.dumps(facts(rows, curves, quick=quick))


def stored(directory: Path) -> tuple[list[Row], list[Curve]]:
    """Return the rows and curves of the report that is stored there; none where there is none.

    Raises click.ClickException for a file that is no report.
    """
    path = directory / "report.json"
    if not path.exists():
        return [], []
    try:
        run = msgspec.json.decode(path.read_bytes(), type=_Stored)
    except (msgspec.DecodeError, OSError) as error:
        raise click.ClickException(
            f"{path} is no report ({error}); put the repository's back, or remove it."
        ) from error
    return run.rows, run.curves


def replaced(before: Sequence[Row], now: Sequence[Row], *, whole: bool = True) -> list[Row]:
    """Return the rows of both, in the order of the older; groups measured anew replace theirs.

    Where they are not whole, each row replaces the one of its name alone.
    """
    if not whole:
        rows = {(row.group, row.name): row for row in (*before, *now)}
        groups = dict.fromkeys(group for group, _ in rows)
        return [row for group in groups for row in rows.values() if row.group == group]
    anew = {row.group: [each for each in now if each.group == row.group] for row in now}
    groups = dict.fromkeys(row.group for row in (*before, *now))
    old = {group: [row for row in before if row.group == group] for group in groups}
    return [row for group in groups for row in anew.get(group, old[group])]


def _span(rows: Sequence[Row]) -> dict[str, str]:
    """Return when the first and the last row were measured."""
    times = sorted(row.measured for row in rows) or [""]
    return {"first": times[0], "last": times[-1]}


def peak(curve: Curve) -> str:
    """Say where the throughput peaks, where it should, and by how much; or that none is seen."""
    should = (
        f"{curve.suite}: up to {curve.fits} bytes a datagram fits into one packet with what the "
        f"suite adds."
    )
    found = curve.steps
    if not found:
        return f"{should} Too few sizes were measured around that to say more.\n"
    step = likeliest(found)
    measured = (
        f"{step.rise:.1f} microseconds, where sizes lie {step.scatter:.1f} from a straight line"
    )
    native = f"native steps by {curve.native_rise:.1f} there"
    if curve.peak is not None:
        place = curve.sizes.index(curve.peak)
        sent, received = curve.sent[place].median, curve.received[place].median
        share = 100 * step.rise / microseconds(curve.peak, sent)
        return (
            f"{should} The peak is there: after {curve.peak} bytes, with {sent:.1f} Mbit/s sent "
            f"and {received:.1f} received, what the sender needs for a datagram steps up by "
            f"{measured}, and {native}. That is {share:.1f} % of it, for the second packet, and "
            f"the throughput is less until there is as much more in a datagram.\n"
        )
    there = next((each for each in found if each.after == curve.fits), None)
    rise = "that size was not measured" if there is None else f"{there.rise:.1f} microseconds"
    if step.after == curve.fits:
        return (
            f"{should} No peak stands out of the noise there: it is a step of {measured}, and "
            f"{native}.\n"
        )
    return (
        f"{should} No peak stands out of the noise there: what the sender needs for a datagram "
        f"steps by {rise} at that size. Where one is likeliest it is of {measured}, after "
        f"{step.after} bytes, where nothing begins that would explain one.\n"
    )


def table(rows: Iterable[Row]) -> str:
    """Return a group's rows, and their notes."""
    rows = list(rows)
    lines = [
        f"| {row.name} | {_spread(row.ours)} {row.unit} | {_spread(row.floor)} {row.unit} "
        f"| {row.floor_name} | {_figures(row.ratio)} | {row.aim.text} | {_WORDS[row.is_met]} |"
        for row in rows
    ]
    notes = [f"- {row.name}: {row.note}." for row in rows if row.note]
    return _HEAD + "\n".join(lines) + "\n" + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _spread(values: Sequence[float]) -> str:
    return _figures(Spread.of(values))


def _figures(spread: Spread) -> str:
    return f"{_short(spread.median)} ({_short(spread.low)} to {_short(spread.high)})"


def _short(value: float) -> str:
    digits = max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{digits}f}"

"""The report of a run, as people read it (Markdown) and as programs do (JSON)."""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click
import msgspec

from bench import closed
from bench.comparison import Row, Spread
from bench.drawing import draw
from bench.edge import likeliest, microseconds
from bench.paper import Curve
from bench.stored import kept, read

_HEAD = "| what | ours | floor | floor is | ratio | aim | |\n|---|---|---|---|---|---|---|\n"
_READING = (
    "Both sides of a row were measured in turn, round by round, but for what a request adds to a "
    "Host's memory, whose floor is measured after it, and for floors that are counted, as round "
    "trips are. Each figure is the median, with the quartiles in brackets; the ratio is that of "
    "ours to the floor within a round.\n"
)
RESULTS = Path(__file__).with_name("results")
"""Where the report of whole runs is."""
_WORDS = {True: "met", False: "**missed**", None: "within the spread"}
_SMALL = 0.001
"""What is smaller is nothing."""
_NOT_KEPT = "not kept"


class _Stored(msgspec.Struct):
    rows: list[Row]
    curves: list[Curve]
    quick: bool = False


def facts(rows: Sequence[Row], curves: Sequence[Curve] = (), *, quick: bool) -> dict[str, Any]:
    """Return all of a run as JSON has it."""
    return {
        "quick": quick,
        "rows": [row.facts() for row in rows],
        "curves": [curve.facts() for curve in curves],
    }


def markdown(
    rows: Sequence[Row],
    curves: Sequence[Curve],
    pictures: Sequence[str],
    run: dict[str, Any],
    before: Sequence[closed.Closed] = (),
    between: Sequence[Row] = (),
) -> str:
    """Return the report's text."""
    kind = "Quick runs" if run["quick"] else "Whole runs"
    parts = ["# What Carnet takes, next to its floors\n", f"{kind} of each table.\n", reading(rows)]
    for group, members in groupby(rows, key=lambda row: row.group):
        parts.append(f"## {group}\n")
        parts.append(table(list(members)))
    if curves:
        parts.append("## Figure 4 of the paper, in the guest kernel\n")
        parts += [peak(curve) for curve in curves]
    if before:
        parts += ["## Before and after\n", closed.table(before, rows, between)]
    parts += [f"![{name}]({name}.svg)\n" for name in pictures]
    return "\n".join(parts)


def reading(rows: Sequence[Row]) -> str:
    """Say when, on what and of what the rows were measured, and how to read them."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row.machine, row.commit), []).append(row)
    return "".join(f"{_run(*on, of)}\n" for on, of in runs.items()) + "\n" + _READING


def _run(machine: str, commit: str, rows: Sequence[Row]) -> str:
    first, *_, last = sorted(row.measured for row in [*rows, *rows])
    tables = ", ".join(dict.fromkeys(row.table or row.group for row in rows))
    return (
        f"- {first} to {last}; machine: {machine or _NOT_KEPT}; commit: {commit or _NOT_KEPT}; "
        f"tables: {tables}."
    )


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
    text = markdown(rows, curves, pictures, run, closed.kept(directory), kept(directory))
    (directory / "report.md").write_text(text)


def as_json(rows: Sequence[Row], curves: Sequence[Curve] = (), *, quick: bool) -> str:
    """Return the facts of a run as JSON."""
    return json.dumps(facts(rows, curves, quick=quick))


def stored(directory: Path) -> tuple[list[Row], list[Curve]]:
    """Return the rows and curves of the report that is stored there; none where there is none.

    Raises click.ClickException for a file that is no report.
    """
    run = _read(directory)
    return run.rows, run.curves


def some_rows(directory: Path) -> list[Row]:
    """Return the rows of the report that is stored there.

    Raises click.ClickException where there is none, or none of rows.
    """
    rows = stored(directory)[0]
    if not rows:
        raise click.ClickException(
            f"There is no report in {directory} yet; make one by `make bench`."
        )
    return rows


def _read(directory: Path) -> _Stored:
    return read(directory / "report.json", _Stored, _Stored([], []), "report")


def try_place(directory: Path, *, quick: bool) -> None:
    """Make the directory, if need be, and see that a report of this kind can go there.

    Raises click.ClickException where it cannot be written, or has a report of the other kind,
    or where what is beside it cannot be read.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise click.ClickException(
            f"No report can be written into {directory} ({error}); name another place by --out."
        ) from error
    run = _read(directory)
    if run.rows and run.quick != quick:
        kind, other = ("quick", "whole") if quick else ("whole", "quick")
        raise click.ClickException(
            f"{directory} has the report of {other} runs, and this one is {kind}; name another "
            f"place by --out."
        )
    # Of use only when all is measured, and then it is late to hear that they are none.
    closed.kept(directory)
    kept(directory)


def replaced(before: Sequence[Row], now: Sequence[Row], *, whole: bool = True) -> list[Row]:
    """Return the rows of both, in the order of the older; groups measured anew replace theirs.

    What older groups are of a table that was measured anew are no more. Where they are not
    whole, each row replaces the one of its name alone.
    """
    if not whole:
        rows = {(row.group, row.name): row for row in (*before, *now)}
        groups = dict.fromkeys(group for group, _ in rows)
        return [row for group in groups for row in rows.values() if row.group == group]
    anew = {row.group: [each for each in now if each.group == row.group] for row in now}
    tables = {row.table for row in now} - {""}
    before = [row for row in before if row.group in anew or row.table not in tables]
    groups = dict.fromkeys(row.group for row in (*before, *now))
    old = {group: [row for row in before if row.group == group] for group in groups}
    return [row for group in groups for row in anew.get(group, old[group])]


def peak(curve: Curve) -> str:
    """Say where the throughput peaks, where it should, and by how much; or that none is seen."""
    should = (
        f"{curve.suite}: up to {curve.fits} bytes a datagram fits into one packet with what the "
        f"suite adds.{_fragments(curve)}"
    )
    found = curve.steps
    if not found:
        return f"{should} Too few sizes were measured around that to say more.\n"
    step = likeliest(found)
    if curve.peak is not None and curve.edge is not None:
        step = curve.edge
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
    there = curve.edge
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


def _fragments(curve: Curve) -> str:
    """Say from where on the kernel makes fragments, which no noise moves."""
    if curve.in_one_packet is None:
        return ""
    larger = [size for size in curve.sizes if size > curve.in_one_packet]
    counted = f" The kernel counts no fragments (FragCreates) up to {curve.in_one_packet} bytes"
    if not larger:
        return f"{counted}."
    each = curve.fragments[curve.sizes.index(larger[0])]
    return f"{counted}, and {each:.1f} a datagram at {larger[0]}."


def table(rows: Iterable[Row]) -> str:
    """Return a group's rows, and their notes."""
    rows = list(rows)
    lines = [
        f"| {row.name} | {_spread(row.ours)} {row.unit} | {_spread(row.floor)} {row.unit} "
        f"| {row.floor_name} | {_figures(row.ratio)} | {_aim(row)} |"
        for row in rows
    ]
    notes = [f"- {row.name}: {row.note}." for row in rows if row.note]
    return _HEAD + "\n".join(lines) + "\n" + ("\n" + "\n".join(notes) + "\n" if notes else "")


def _aim(row: Row) -> str:
    """Say what is aimed at, the difference where it is one of that, and how that came out."""
    if not row.aim.is_one:
        return f"{row.aim.text} | "
    which = "" if row.aim.above is None else f"; {_figures(row.judged)} {row.unit} above it"
    return f"{row.aim.text}{which} | {_WORDS[row.is_met]}"


def _spread(values: Sequence[float]) -> str:
    return _figures(Spread.of(values))


def _figures(spread: Spread) -> str:
    return f"{short(spread.median)} ({short(spread.low)} to {short(spread.high)})"


def short(value: float) -> str:
    """Return a figure with three digits that count."""
    if _SMALL <= abs(value) < 100 * _SMALL:
        return f"{value:#.3g}"
    digits = max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{digits}f}"

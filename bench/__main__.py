"""Measure, and write the report: `python -m bench`, or `make bench` and `make bench-quick`."""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import structlog

from bench import paper, regression, report, stored
from bench.comparison import Row
from bench.machine import commit, machine
from bench.paper_guest import SUITES
from bench.plan import Plan
from bench.rows import (
    commands,
    connect,
    database,
    distance,
    ending,
    host,
    latency,
    many,
    memory,
    minting,
)
from carnet import interruption

PAPER = "paper"
TABLES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "commands": commands.rows,
    "minting": minting.rows,
    "connect": connect.rows,
    "distance": distance.rows,
    "host": host.rows,
    "latency": latency.rows,
    "database": database.rows,
    "ending": ending.rows,
    "many": many.rows,
    "memory": memory.rows,
}
_ORDER = (*(name for name in TABLES if name != "memory"), PAPER, "memory")
"""Of a whole run: memory is no matter of time, so all that is comes before it."""
_QUICK_ORDER = tuple(name for name in _ORDER if name != "latency")
"""Of a quick one: a few requests tell nothing of the slowest of a hundred."""
_INTERRUPTED = 130


@click.command()
@click.option("--quick", is_flag=True, help="A little of everything, in minutes.")
@click.option(
    "--table",
    "names",
    multiple=True,
    type=click.Choice([*TABLES, PAPER]),
    help="Only this; what a report has of the others stays in it.",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    type=click.Choice([each.name for each in SUITES]),
    help="Of the paper's evaluation, only this one.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the report goes  [default: bench/results, or bench/results/quick].",
)
@click.option("--print", "only_print", is_flag=True, help="Write no report; print JSON.")
def main(
    *, quick: bool, names: tuple[str, ...], suites: tuple[str, ...], out: Path | None,
    only_print: bool,
) -> None:  # fmt: skip
    """Measure Carnet against its floors, and compare with the runs that are stored."""
    place = out or (report.RESULTS / "quick" if quick else report.RESULTS)
    if not only_print:
        report.try_place(place, quick=quick)
        regression.keep_new(place)  # what a run left that was cut off before its end
    before = stored.kept(place) + report.stored(place)[0]
    wanted = names or (_QUICK_ORDER if quick else _ORDER)
    started = time.monotonic()
    rows: list[Row] = []
    not_whole: list[str] = []
    left = list(wanted)
    failure: BaseException | None = None
    with _listening(), _unlogged(), tempfile.TemporaryDirectory() as directory:
        plan = Plan(Path(directory), quick=quick, suites=suites)
        while left and not isinstance(failure, KeyboardInterrupt):
            name = left.pop(0)
            found, curves, failure = _measure(plan, name)
            rows += found
            whole = failure is None
            all_of_it = whole and not suites
            if only_print:
                click.echo(report.as_json(found, curves, quick=quick))
            else:
                whole &= _stored(place, found, curves, quick=quick, whole=all_of_it)
            if not whole:
                not_whole.append(name)
    click.echo(f"All of it took {time.monotonic() - started:.0f} seconds.", err=True)
    for name in not_whole:
        click.echo(f"bench: not measured whole: {name}", err=True)
    for name in left:
        click.echo(f"bench: interrupted, and not measured: {name}", err=True)
    partly = {*not_whole, *left} if not suites else {*TABLES, PAPER}
    is_worse = _compared(before, rows, set(wanted) - partly)
    if not only_print:
        regression.keep_new(place)
    if isinstance(failure, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    sys.exit(1 if is_worse or not_whole else 0)


def _compared(before: list[Row], rows: list[Row], whole: set[str]) -> bool:
    """Say what became worse, and tell whether anything did; these tables were measured whole."""
    worse = regression.regressions(before, rows)
    for table in sorted(whole):
        worse += regression.vanished(before, rows, table)
    for sentence in worse:
        click.echo(f"bench: worse than before: {sentence}", err=True)
    if alone := regression.incomparable(before, rows):
        click.echo(
            f"bench: nothing of this machine is stored to compare {alone} of {len(rows)} rows with",
            err=True,
        )
    return bool(worse)


def _stored(
    place: Path, rows: list[Row], curves: list[paper.Curve], *, quick: bool, whole: bool
) -> bool:
    """Put them into the report; False, and the reason is shown, where that fails."""
    try:
        report.update(place, rows, curves, quick=quick, whole=whole)
    except Exception:  # noqa: BLE001  whatever it is, other tables are wanted
        traceback.print_exc()
        return False
    return True


@contextmanager
def _listening() -> Iterator[None]:
    """Have SIGTERM and a terminal that closes interrupt as Ctrl-C does: the first one, once."""
    numbers = (*interruption.SIGNALS, signal.SIGALRM)
    before = [(number, signal.getsignal(number)) for number in numbers]
    unraisable = sys.unraisablehook
    interruption.listen()
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        sys.unraisablehook = unraisable


@contextmanager
def _unlogged() -> Iterator[None]:
    """Let nothing be logged by what is measured in this process."""
    before = structlog.get_config()
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        try:
            yield
        finally:
            structlog.configure(**before)


def _measure(plan: Plan, name: str) -> tuple[list[Row], list[paper.Curve], BaseException | None]:
    """Measure one table; say each row as it comes, and how long it took.

    Returned are rows and curves, and what ended it before it was whole.
    """
    started = time.monotonic()
    curves: list[paper.Curve] = []
    rows: list[Row] = []
    failure: BaseException | None = None
    on, of = machine(), commit()
    try:
        found: Iterable[Row]
        if name == PAPER:
            found, curves = paper.measure(plan)
        else:
            found = TABLES[name](plan)
        for row in found:
            now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            rows.append(replace(row, measured=now, table=name, machine=on, commit=of))
            click.echo(f"{row.group}: {row.name}: {row.ratio.median:.2f} of the floor", err=True)
    except Exception as error:  # noqa: BLE001  whatever it is, other rows and tables are wanted
        traceback.print_exc()
        failure = error
    except KeyboardInterrupt as error:
        failure = error
    click.echo(f"{name} took {time.monotonic() - started:.0f} seconds.", err=True)
    return rows, curves, failure


if __name__ == "__main__":
    main()

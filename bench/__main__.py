"""Measure, and write the report: `python -m bench`, or `make bench` and `make bench-quick`."""

import os
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

from bench import paper, report
from bench.comparison import Row
from bench.plan import Plan
from bench.regression import regressions
from bench.rows import (
    commands,
    connect,
    database,
    distance,
    ending,
    host,
    many,
    memory,
    minting,
)

RESULTS = Path(__file__).with_name("results")
PAPER = "paper"
TABLES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "commands": commands.rows,
    "minting": minting.rows,
    "connect": connect.rows,
    "distance": distance.rows,
    "host": host.rows,
    "database": database.rows,
    "ending": ending.rows,
    "many": many.rows,
    "memory": memory.rows,
}
_ORDER = (*(name for name in TABLES if name != "memory"), PAPER, "memory")
"""Of a whole run: memory is no matter of time, so all that is comes before it."""


@click.command()
@click.option("--quick", is_flag=True, help="A little of everything, in minutes.")
@click.option(
    "--table",
    "names",
    multiple=True,
    type=click.Choice([*TABLES, PAPER]),
    help="Only this; what a report has of the others stays in it.",
)
@click.option("--suite", "suites", multiple=True, help="Of the paper's evaluation, only this one.")
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
    """Measure Carnet against its floors, and compare with the last run that is stored."""
    place = out or (RESULTS / "quick" if quick else RESULTS)
    before, _ = report.stored(place)
    started = time.monotonic()
    rows: list[Row] = []
    failed: list[str] = []
    with _unlogged(), tempfile.TemporaryDirectory() as directory:
        plan = Plan(Path(directory), quick=quick, suites=suites)
        for name in names or _ORDER:
            found, curves, whole = _measure(plan, name)
            rows += found
            if only_print:
                click.echo(report.as_json(found, curves, quick=quick))
            else:
                all_of_it = whole and not suites
                whole &= _stored(place, found, curves, quick=quick, whole=all_of_it)
            if not whole:
                failed.append(name)
    click.echo(f"All of it took {time.monotonic() - started:.0f} seconds.", err=True)
    for name in failed:
        click.echo(f"bench: not measured whole: {name}", err=True)
    worse = regressions(before, rows)
    for sentence in worse:
        click.echo(f"bench: worse than before: {sentence}", err=True)
    sys.exit(1 if worse or failed else 0)


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
def _unlogged() -> Iterator[None]:
    """Let nothing be logged by what is measured in this process."""
    before = structlog.get_config()
    with Path(os.devnull).open("w") as nowhere:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        try:
            yield
        finally:
            structlog.configure(**before)


def _measure(plan: Plan, name: str) -> tuple[list[Row], list[paper.Curve], bool]:
    """Measure one table; say each row as it comes, how long it took, and whether it is whole."""
    started = time.monotonic()
    curves: list[paper.Curve] = []
    rows: list[Row] = []
    whole = False
    try:
        found: Iterable[Row]
        if name == PAPER:
            found, curves = paper.measure(plan)
        else:
            found = TABLES[name](plan)
        for row in found:
            rows.append(replace(row, measured=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"))
            click.echo(f"{row.group}: {row.name}: {row.ratio.median:.2f} of the floor", err=True)
        whole = True
    except Exception:  # noqa: BLE001  whatever it is, other rows and tables are wanted
        traceback.print_exc()
    click.echo(f"{name} took {time.monotonic() - started:.0f} seconds.", err=True)
    return rows, curves, whole


if __name__ == "__main__":
    main()

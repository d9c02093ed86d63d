"""Measure, and write the report: `python -m bench`, or `make bench` and `make bench-quick`."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import structlog

from bench import paper, report
from bench.comparison import Row
from bench.plan import Plan
from bench.regression import regressions
from bench.rows import commands, connect, database, host, minting

RESULTS = Path(__file__).with_name("results")
PAPER = "paper"
TABLES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "commands": commands.rows,
    "minting": minting.rows,
    "connect": connect.rows,
    "host": host.rows,
    "database": database.rows,
}


@click.command()
@click.option("--quick", is_flag=True, help="A little of everything, in minutes.")
@click.option(
    "--table",
    "names",
    multiple=True,
    type=click.Choice([*TABLES, PAPER]),
    help="Only this; nothing is stored then, unless --out says where.",
)
@click.option("--suite", "suites", multiple=True, help="Of the paper's evaluation, only this one.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the report goes  [default: bench/results, or bench/results/quick].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def main(
    *, quick: bool, names: tuple[str, ...], suites: tuple[str, ...], out: Path | None, as_json: bool
) -> None:
    """Measure Carnet against its floors, and compare with the last run that is stored."""
    stored = RESULTS / "quick" if quick else RESULTS
    with Path(os.devnull).open("w") as nowhere, tempfile.TemporaryDirectory() as directory:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        plan = Plan(Path(directory), quick=quick, suites=suites)
        rows, curves = _measure(plan, names or (*TABLES, PAPER), tell=not as_json)
    worse = regressions(report.last_rows(stored), report.facts(rows, quick=quick)["rows"])
    if out or not names:
        report.write(out or stored, rows, curves, quick=quick)
    if as_json:
        click.echo(report.as_json(rows, curves, quick=quick))
    for sentence in worse:
        click.echo(f"bench: worse than before: {sentence}", err=True)
    sys.exit(1 if worse else 0)


def _measure(
    plan: Plan, names: Sequence[str], *, tell: bool
) -> tuple[list[Row], list[paper.Curve]]:
    """Measure table by table; say each row as it comes."""
    rows: list[Row] = []
    curves: list[paper.Curve] = []
    for name in names:
        if name == PAPER:
            found, curves = paper.measure(plan)
        else:
            found = list(TABLES[name](plan))
        rows += found
        for row in found if tell else ():
            click.echo(f"{row.group}: {row.name}: {row.ratio.median:.2f} of the floor")
    return rows, curves


if __name__ == "__main__":
    main()

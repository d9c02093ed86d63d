"""Measure, and write the report: `python -m bench`, or `make bench` and `make bench-quick`."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import structlog

from bench import report
from bench.comparison import Row
from bench.plan import Plan
from bench.regression import regressions
from bench.rows import commands, connect, database, host, minting

RESULTS = Path(__file__).with_name("results")
TABLES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "commands": commands.rows,
    "minting": minting.rows,
    "connect": connect.rows,
    "host": host.rows,
    "database": database.rows,
}


@click.command()
@click.option("--quick", is_flag=True, help="A little of everything, in about five minutes.")
@click.option("--table", "names", multiple=True, type=click.Choice(list(TABLES)), help="Only this.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the report goes  [default: bench/results, or below it for a part of it].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def main(*, quick: bool, names: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Measure Carnet against its floors, and compare with the last run that is stored."""
    place = out or (RESULTS / "quick" if quick else RESULTS)
    rows: list[Row] = []
    with Path(os.devnull).open("w") as nowhere, tempfile.TemporaryDirectory() as directory:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        plan = Plan(Path(directory), quick=quick)
        for name in names or TABLES:
            for row in TABLES[name](plan):
                rows.append(row)
                if not as_json:
                    click.echo(f"{row.group}: {row.name}: {row.ratio.median:.2f} of the floor")
    worse = regressions(report.last_rows(place), report.facts(rows, quick=quick)["rows"])
    if names:
        click.echo("A part of the tables is not stored.", err=True)
    else:
        report.write(place, rows, quick=quick)
    if as_json:
        click.echo(report.as_json(rows, quick=quick))
    for sentence in worse:
        click.echo(f"bench: worse than before: {sentence}", err=True)
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()

"""Puts the figures of the stored report into docs/MEASURED.md: `python -m bench.page`.

A person writes the page and why each figure is as it is; the tables come from the report alone.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from bench import closed, report
from bench.comparison import Row
from bench.paper import Curve
from bench.stored import kept

PAGE = Path(__file__).parents[1] / "docs" / "MEASURED.md"
_PLACE = re.compile(
    r"(?P<begin><!-- written by `make measured`: (?P<what>[^\n]+) -->\n)"
    r".*?(?P<end><!-- end of what `make measured` writes -->\n)",
    re.DOTALL,
)
RUN, PEAKS, CLOSED = "the run", "the peaks", "before and after"
_NOTHING = "Not measured yet: `make bench`, then `make measured`.\n"


def filled(
    text: str,
    rows: Sequence[Row],
    curves: Sequence[Curve],
    before: Sequence[closed.Closed] = (),
    between: Sequence[Row] = (),
) -> str:
    """Return the page with what the report has in each place that is marked for it.

    Raises ValueError where the report has a group of rows that the page has no place for.
    """
    parts = {row.group: report.table([x for x in rows if x.group == row.group]) for row in rows}
    if rows:
        parts[RUN] = report.reading(rows)
    if before:
        parts[CLOSED] = closed.table(before, rows, between)
    if curves:
        parts[PEAKS] = "\n".join(map(report.peak, curves))
    missing = parts.keys() - {place["what"] for place in _PLACE.finditer(text)}
    if missing:
        raise ValueError(f"docs/MEASURED.md has no place for {', '.join(sorted(missing))}.")
    return _PLACE.sub(
        lambda place: place["begin"] + parts.get(place["what"], _NOTHING) + place["end"], text
    )


@click.command()
def main() -> None:
    """Write the page anew; refuse where there is no report."""
    results = report.RESULTS
    report.some_rows(results)
    before, between = closed.kept(results), kept(results)
    PAGE.write_text(filled(PAGE.read_text(), *report.stored(results), before, between))


if __name__ == "__main__":
    main()

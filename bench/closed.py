"""What was closed: rows as they were measured before, beside what they are now.

`before.json` beside the report keeps them, each with what was done since. Nothing is written
by hand but that: the figures are those of the reports of their time. What came after is what
was measured next of the same row and is still known, be it here, in the baseline or in the
newest report, so that no lever is credited with what a later one brought.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.comparison import Row, Spread
from bench.stored import read

NAME = "before.json"
_HEAD = (
    "| what | closed by | before | ratio | after | ratio | measured before, after |\n"
    "|---|---|---|---|---|---|---|\n"
)
_NOT_SINCE = "not measured since"


class Closed(msgspec.Struct, frozen=True):
    """A row before something was done about it."""

    by: str
    """What was done."""
    row: Row


def kept(directory: Path) -> list[Closed]:
    """Return what is kept beside a report; nothing where there is no such file.

    Raises click.ClickException for a file of something else.
    """
    return read(directory / NAME, list[Closed], [], "list of what was closed")


def table(closed: Sequence[Closed], rows: Sequence[Row], between: Sequence[Row] = ()) -> str:
    """Return each beside what was measured of it next.

    `rows` are those of the newest report, `between` those of the baseline.
    """
    known = [*(each.row for each in closed), *between, *rows]
    return _HEAD + "".join(f"{_line(each, _next(each.row, known))}\n" for each in closed)


def _next(before: Row, known: Sequence[Row]) -> Row | None:
    """Return what was measured of it next, and not of the same commit, if that is known."""
    later = [
        row
        for row in known
        if (row.group, row.name) == (before.group, before.name)
        and row.measured > before.measured
        and (not before.commit or row.commit != before.commit)
    ]
    return min(later, key=lambda row: row.measured, default=None)


def _line(closed: Closed, after_it: Row | None) -> str:
    before = closed.row
    if after_it is None:
        after = f"{_NOT_SINCE} | | {before.measured}"
    else:
        after = (
            f"{_median(after_it)} | {after_it.ratio.median:.2f} "
            f"| {before.measured}, {after_it.measured}"
        )
    return (
        f"| {before.name} | {closed.by} | {_median(before)} | {before.ratio.median:.2f} | {after} |"
    )


def _median(row: Row) -> str:
    return f"{Spread.of(row.ours).median:.3g} {row.unit}"

"""What was closed: rows as they were measured before, beside what they are now.

`before.json` beside the report keeps them, each with what was done since. Nothing is written
by hand but that: the figures are those of the reports of their time.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.comparison import Row, Spread

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
    """Return what is kept beside a report; nothing where there is no such file."""
    path = directory / NAME
    return msgspec.json.decode(path.read_bytes(), type=list[Closed]) if path.exists() else []


def table(closed: Sequence[Closed], rows: Sequence[Row]) -> str:
    """Return each beside what was measured of it last."""
    now = {(row.group, row.name): row for row in rows}
    return _HEAD + "".join(
        f"{_line(each, now.get((each.row.group, each.row.name)))}\n" for each in closed
    )


def _line(closed: Closed, now: Row | None) -> str:
    before = closed.row
    if now is None or now.measured <= before.measured:
        after = f"{_NOT_SINCE} | | {before.measured}"
    else:
        after = f"{_median(now)} | {now.ratio.median:.2f} | {before.measured}, {now.measured}"
    return (
        f"| {before.name} | {closed.by} | {_median(before)} | {before.ratio.median:.2f} | {after} |"
    )


def _median(row: Row) -> str:
    return f"{Spread.of(row.ours).median:.3g} {row.unit}"

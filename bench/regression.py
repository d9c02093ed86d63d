"""Whether a run's ratios are worse than stored ones: the last ones, and those that are kept.

`baseline.json` beside a report keeps rows until somebody puts others in their place on
purpose: `python -m bench.regression`, or `make baseline`. So what becomes worse little by
little is found too, and what was worse once is told until it is better or taken as it is.
A row of which the file has none of that machine is put there as it is measured first.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from bench import report
from bench.comparison import Row, Spread
from bench.stored import BASELINE, kept

TOLERANCE = 1.25
"""By which factor a ratio may be worse: so much it varies from run to run on a busy machine."""
_STEADY = 1.05
"""The same of memory and of counts, which no busy machine changes."""
_STEADY_UNITS = ("MiB", "KiB", "round trips")
_NOTHING = 0.005
"""What takes less than this of its floor is nothing of the whole."""
_FROM_MET = {True: 0, None: 1, False: 2}
_WORDS = {True: "met", None: "within the spread", False: "missed"}


def keep(directory: Path) -> None:
    """Compare with the rows of this report from now on.

    Raises click.ClickException where there are none.
    """
    _write(directory, report.some_rows(directory))


def keep_new(directory: Path) -> None:
    """Compare from now on, too, with the report's rows of which none of that machine is kept."""
    known = kept(directory)
    new = [row for row in report.stored(directory)[0] if not any(_same(known, row))]
    if new:
        _write(directory, [*known, *new])


def _write(directory: Path, rows: Sequence[Row]) -> None:
    lines = [msgspec.json.encode(row).decode() for row in rows]
    new = directory / f"{BASELINE}.new"
    new.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    new.replace(directory / BASELINE)


def regressions(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Return a sentence for each row that became worse than a stored one of the same machine.

    Its ratio is worse by more than the tolerance and both runs' spread, or its aim is farther
    from being met. Where what is aimed at is ours itself, that is compared, for the floor may
    get slower too. A row may be stored more than once, the one that counts most first.
    """
    return [
        sentence
        for row in now
        if (sentence := next(filter(None, (_worse(last, row) for last in _same(before, row))), ""))
    ]


def vanished(before: Sequence[Row], now: Sequence[Row], table: str) -> list[str]:
    """Return a sentence for each stored row of a table that was measured whole without it.

    Beside another floor it is another row.
    """
    names = {(row.group, row.name) for row in now}
    sides = {(row.group, row.name, row.floor_name) for row in now}
    gone = dict.fromkeys(
        (row.group, row.name, row.floor_name) for row in before if row.table == table
    )
    return [
        f"{group}, {name}: is no more{f' beside {floor}' if (group, name) in names else ''}."
        for group, name, floor in gone
        if (group, name, floor) not in sides
    ]


def incomparable(before: Sequence[Row], now: Sequence[Row]) -> int:
    """Count the rows that nothing of the same machine is stored of."""
    return sum(not any(_same(before, row)) for row in now)


def _same(before: Sequence[Row], row: Row) -> Iterator[Row]:
    """Yield those that were measured alike: a floor of another name is another one."""
    return (each for each in before if _which(each) == _which(row))


def _which(row: Row) -> tuple[str, str, str, str]:
    return row.group, row.name, row.floor_name, row.machine


def _worse(last: Row, row: Row) -> str:
    """Say how it is worse; nothing where it is not."""
    was, is_ = (report.short(each.median) for each in _compared(last, row))
    if _is_worse(last, row):
        of_it = "of the floor" if row.aim.limit is None else row.unit
        return f"{row.group}, {row.name}: {is_} {of_it}, where it was {was}."
    if last.aim.is_one and row.aim.is_one and _FROM_MET[row.is_met] > _FROM_MET[last.is_met]:
        before, now = _WORDS[last.is_met], _WORDS[row.is_met]
        return f"{row.group}, {row.name}: {row.aim.text} was {before}, and is {now} ({is_})."
    return ""


def _compared(last: Row, row: Row) -> tuple[Spread, Spread]:
    if row.aim.limit is None:
        return last.ratio, row.ratio
    return Spread.of(last.ours), Spread.of(row.ours)


def _is_worse(last: Row, row: Row) -> bool:
    return _has_worse_ratio(last, row) or _is_farther_above(last, row)


def _is_farther_above(last: Row, row: Row) -> bool:
    """Tell whether more was added to the floor: by a part of what may be, and of no spread."""
    if row.aim.above is None or last.aim.above is None:
        return False
    was, is_ = last.judged, row.judged
    return is_.median > was.median + (TOLERANCE - 1) * row.aim.above and is_.low > was.high


def _has_worse_ratio(last: Row, row: Row) -> bool:
    was, is_ = _compared(last, row)
    tolerance = _STEADY if row.unit in _STEADY_UNITS else TOLERANCE
    if row.more_is_better:
        return is_.median * tolerance < was.median and is_.high < was.low
    return is_.median > max(was.median * tolerance, _NOTHING) and is_.low > was.high


@click.command()
def main() -> None:
    """Keep the rows of bench/results as they are."""
    keep(report.RESULTS)
    click.echo(f"Runs are compared with {report.RESULTS / BASELINE} from now on.", err=True)


if __name__ == "__main__":
    main()

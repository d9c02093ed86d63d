"""Whether a run's ratios are worse than the last stored ones."""

from collections.abc import Sequence

from bench.comparison import Row

TOLERANCE = 1.25
"""By which factor a ratio may be worse: so much it varies from run to run on a busy machine."""


def regressions(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Return a sentence for each row whose ratio became worse than both runs' spread allows.

    Where more is better a smaller ratio is worse, elsewhere a greater one.
    """
    older = {(row.group, row.name): row for row in before}
    found = []
    for row in now:
        last = older.get((row.group, row.name))
        if last is not None and _is_worse(last, row):
            found.append(
                f"{row.group}, {row.name}: {row.ratio.median:.2f} of the floor, "
                f"where it was {last.ratio.median:.2f}."
            )
    return found


def _is_worse(last: Row, row: Row) -> bool:
    was, is_ = last.ratio, row.ratio
    if f"{is_.median:.2f}" == f"{was.median:.2f}":
        return False  # a piece so small is nothing of the whole
    if row.more_is_better:
        return is_.median * TOLERANCE < was.median and is_.high < was.low
    return is_.median > was.median * TOLERANCE and is_.low > was.high

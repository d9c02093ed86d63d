"""The tables of docs/IPSEC.md, each written by a run that has seen every line of it."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "IPSEC.md"

Row = tuple[str, ...]

_HEADS = {
    "matrix": ("objective", "mode", "outside", "inside", "what passes between Client and Target"),
    "pairings": (
        *("Client", "Target", "IKE", "profile"),
        *("objective", "mode", "inside", "PPK", "what passes"),
    ),
}
"""By the name of their markers, which is that of the property that a test records."""

_rows: dict[str, set[Row]] = defaultdict(set)


def collect(report) -> None:
    """Take in the line that a test of a table has recorded, if it passed."""
    if report.when == "call" and report.passed:
        for name, row in report.user_properties:
            if name in _HEADS:
                _rows[name].add(tuple(row))


def write() -> None:
    """Write those tables anew that this run has seen all of."""
    for name, rows in _rows.items():
        if rows == set(expected(name)):
            refresh(DOCUMENT, name, expected(name))


def expected(name: str) -> list[Row]:
    """Return the lines of a table, once each was seen."""
    from tests.guest.cases import cases  # noqa: PLC0415  needed after a whole run only
    from tests.guest.pairings import PAIRINGS  # noqa: PLC0415

    if name == "pairings":
        return [pairing.row for pairing in PAIRINGS]
    return [case.row for outer in (4, 6) for case in cases(outer)]


def refresh(document: Path, name: str, rows: Sequence[Row]) -> None:
    head, begin, end = _HEADS[name], f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, rows)]
    text = f"{before}{begin}\n" + "".join(lines) + f"{end}{after}"
    if text != document.read_text():
        document.write_text(text)


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |\n"

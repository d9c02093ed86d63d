"""The matrix of docs/IPSEC.md, written by the run that has seen every line of it."""

from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "IPSEC.md"
_BEGIN, _END = "<!-- matrix -->", "<!-- end of matrix -->"
_HEAD = ("objective", "mode", "outside", "inside", "what passes between Client and Target")

_rows: set[tuple[str, ...]] = set()


def collect(report) -> None:
    """Take in the line that a test of the matrix has recorded, if it passed."""
    if report.when == "call" and report.passed:
        _rows.update(tuple(v) for name, v in report.user_properties if name == "matrix")


def write() -> None:
    """Write the matrix anew, if this run has seen all of it."""
    if not _rows:
        return
    from tests.guest.cases import cases  # noqa: PLC0415  needed after a whole run only

    expected = [case.row for outer in (4, 6) for case in cases(outer)]
    if _rows == set(expected):
        refresh(DOCUMENT, expected)


def refresh(document: Path, rows: list[tuple[str, ...]]) -> None:
    before, _, rest = document.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD)), *map(_line, rows)]
    text = f"{before}{_BEGIN}\n" + "".join(lines) + f"{_END}{after}"
    if text != document.read_text():
        document.write_text(text)


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |\n"

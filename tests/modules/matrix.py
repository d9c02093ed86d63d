"""The table of modules in docs/TOKENS.md: read, compared with a run's findings, rewritten."""

import os
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "TOKENS.md"
WRITE_VARIABLE = "CARNET_WRITE_MATRIX"

_BEGIN = "<!-- written by `make matrix` -->\n"
_END = "<!-- end of what `make matrix` writes -->\n"

Matrix = dict[str, dict[str, str]]
"""By module, and then by what was tried."""


def written() -> Matrix:
    """Return the table as it is written down; nothing where there is none yet."""
    lines = [line for line in _parts()[1].splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not rows:
        return {}
    (_, *modules), *body = rows
    return {
        module: {row[0]: row[number] for row in body} for number, module in enumerate(modules, 1)
    }


def check(module: str, found: dict[str, str]) -> None:
    """Compare a module's column with what was found; or write it, where that is asked for."""
    if WRITE_VARIABLE in os.environ:
        _write({**written(), module: found})
    assert written().get(module) == found, "run `make matrix` if this is how it shall be"


def _write(matrix: Matrix) -> None:
    head, _, tail = _parts()
    rows = next(iter(matrix.values()))
    lines = [["", *matrix], ["---"] * (len(matrix) + 1)]
    lines += [[row, *(found.get(row, "") for found in matrix.values())] for row in rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---")
    DOCUMENT.write_text(head + _BEGIN + table.replace("|--- |", "|---|") + _END + tail)


def _parts() -> tuple[str, str, str]:
    head, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    table, _, tail = rest.partition(_END)
    return head, table, tail

"""Write the vectors: python -m tests.vectors.generate [DIRECTORY].

It imports nothing of the product: what both agree on, two implementations say.
"""

import sys
from pathlib import Path

from tests.vectors.cases import all_cases


def write(directory: Path) -> None:
    """Write every case below a directory, in good/ and bad/."""
    for case in all_cases():
        path = directory / f"{case.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(case.text())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

"""Fuzz every decoder in turn for a share of the time: `python -m tests.fuzz.campaign SECONDS`.

Each target's corpus stays in .fuzz/NAME for the next time. An input that breaks a promise
is written to .fuzz/broken, and its path is printed; then the exit status is 1.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

PLACE = Path(".fuzz")
_STATE = re.compile(r"^#(\d+)\s+DONE\s+cov: (\d+).*corp: (\d+)", re.MULTILINE)


def fuzz(
    name: str, corpus: Path, broken: Path, *options: str
) -> "subprocess.CompletedProcess[str]":
    """Fuzz one decoder in a process of its own; exit status 0 if nothing was found."""
    for directory in (corpus, broken):
        directory.mkdir(parents=True, exist_ok=True)
    prefix = f"-artifact_prefix={broken / name}-"
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, str(corpus), prefix, *options],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def show(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


def main(seconds: str) -> int:
    """Fuzz all, say how it goes, return the exit status."""
    end = time.monotonic() + int(seconds)
    starting = 0.0
    failed = 0
    for number, name in enumerate(TARGETS, 1):
        begun = time.monotonic()
        share = max(1, int((end - begun) / (len(TARGETS) + 1 - number) - starting))
        done = fuzz(name, PLACE / name, PLACE / "broken", f"-max_total_time={share}")
        # A fuzzer counts its time only once it has started.
        starting = max(0.0, time.monotonic() - begun - share)
        state = _STATE.search(done.stderr)
        if done.returncode == 0 and state:
            runs, coverage, corpus = state.groups()
            what = f"{int(runs):>9} runs, coverage {coverage}, corpus {corpus}"
        else:
            failed += 1
            what = f"BROKEN\n{done.stderr[-3000:]}"
        show(f"{number:2} of {len(TARGETS)}  {name:<18} {what}")
    if failed:
        show(f"{failed} decoders broke a promise; the inputs are in {PLACE / 'broken'}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

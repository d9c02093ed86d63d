"""As a program, `carnet-host import` as it is, which then says how much memory it came to use.

An import of its own process: a peak that a parent handed down would hide the child's.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

from host_agent.cli import cli
from tests.hostile.memory import peak


@dataclass
class Done:
    """What an import printed, what it said, and the most memory that it used, in bytes."""

    status: int
    facts: dict | None
    said: str
    peak: int


def import_batch(config, batch, pin_file):
    """Run the import; return what came of it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.host.importing", config, batch, pin_file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    *facts, last = done.stdout.splitlines() or ["0"]
    return Done(done.returncode, json.loads(facts[0]) if facts else None, done.stderr, int(last))


def main(config, batch, pin_file):
    """Import, and print the peak behind what the command prints."""
    argv = ["--config", config, "import", batch, "--pin-file", pin_file, "--json"]
    cli.main(argv, standalone_mode=False)
    print(peak())  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])

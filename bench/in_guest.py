"""A measurement in the guest kernel: its figures come out line by line, as JSON."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.plan import Plan
from lab.guest import OUT, Guest
from lab.waiting import wait_until
from tests.guest.opening import prepare_office

Figures = Mapping[str, Any]
_RESULTS = "figures"
_ROOT = Path(__file__).parents[1]
_SECONDS = 5400.0


def say(figures: Figures) -> None:
    """Inside: write one line."""
    with (OUT / _RESULTS).open("a") as file:
        file.write(json.dumps(figures) + "\n")


def measured(
    plan: Plan, what: str, module: str, order: str, *, pairs: int, steps: int
) -> list[Figures]:
    """Boot a guest, run a module in it whose argument is the order, and return its lines.

    `pairs` are on the token, `steps` the lines to come. Raises LabError if it ends early,
    RuntimeError if the module fails.
    """
    argv = [sys.executable, "-m", module, order]
    with (
        Guest(argv, _ROOT, prepare=lambda there: prepare_office(there, pairs)) as guest,
        plan.progress(what, steps) as advance,
    ):
        path, shown = guest.directory / _RESULTS, 0

        def ended() -> bool:
            nonlocal shown
            now = len(path.read_text().splitlines()) if path.exists() else 0
            advance(now - shown)
            shown = now
            return not guest.running

        wait_until(ended, "the guest to have measured", _SECONDS)
        if guest.wait(1):
            raise RuntimeError(f"The guest's benchmark failed: {guest.said()}")
        return [json.loads(line) for line in path.read_text().splitlines()]

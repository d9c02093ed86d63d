"""A measurement in guest kernels: its figures come out line by line, as JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.plan import Plan
from lab.errors import LabError
from lab.guest import OUT, Guest
from lab.waiting import wait_until
from tests.guest.opening import prepare_office

Figures = Mapping[str, Any]
_RESULTS = "figures"
_ROOT = Path(__file__).parents[1]
_SECONDS = 5400.0


@dataclass(frozen=True)
class Errand:
    """What one guest measures."""

    module: str
    """Run in it."""
    order: str
    """Its argument."""
    pairs: int
    """On the token."""


class GuestFailedError(Exception):
    """A guest did not measure all that it was to; `lines` are what there is."""

    def __init__(self, said: str, lines: list[Figures]) -> None:
        super().__init__(f"The guest's benchmark failed: {said}")
        self.lines = lines


def say(figures: Figures) -> None:
    """Inside: write one line."""
    with (OUT / _RESULTS).open("a") as file:
        file.write(json.dumps(figures) + "\n")


def measured(plan: Plan, what: str, errands: Sequence[Errand], steps: int) -> list[Figures]:
    """Have a guest do each of these, all at the same time, and return their lines.

    Each guest is kept on one processor, two of them on one each where there are two. `steps`
    are the lines to come. Raises GuestFailedError.
    """
    with ExitStack() as stack, plan.progress(what, steps) as advance:
        guests = [
            stack.enter_context(_guest(errand, place)) for place, errand in enumerate(errands)
        ]
        shown = 0

        def ended() -> bool:
            nonlocal shown
            now = sum(len(_lines(guest)) for guest in guests)
            advance(now - shown)
            shown = now
            return not any(guest.running for guest in guests)

        wait_until(ended, "the guest to have measured", _SECONDS)
        lines = [json.loads(line) for guest in guests for line in _lines(guest)]
        for guest in guests:
            try:
                failed = bool(guest.wait(1))
            except LabError as error:
                raise GuestFailedError(str(error), lines) from error
            if failed:
                raise GuestFailedError(guest.said(), lines)
        return lines


def _guest(errand: Errand, place: int) -> Guest:
    argv = [sys.executable, "-m", errand.module, errand.order]
    prepare = partial(prepare_office, pairs=errand.pairs)
    return Guest(argv, _ROOT, prepare=prepare, place=place)


def _lines(guest: Guest) -> list[str]:
    path = guest.directory / _RESULTS
    return path.read_text().splitlines() if path.exists() else []

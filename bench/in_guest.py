"""A measurement in guest kernels: its figures come out line by line, as JSON."""

import json
import sys
from collections.abc import Mapping
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


class InterruptedInGuestError(KeyboardInterrupt):
    """An interrupt while a guest measured; `lines` are what there is."""

    def __init__(self, lines: list[Figures]) -> None:
        super().__init__("The guest's benchmark was interrupted.")
        self.lines = lines


def say(figures: Figures) -> None:
    """Inside: write one line."""
    with (OUT / _RESULTS).open("a") as file:
        file.write(json.dumps(figures) + "\n")


def measured(plan: Plan, what: str, errand: Errand, steps: int) -> list[Figures]:
    """Have a guest do this, and return its lines.

    The guest is kept on one processor, and what else runs is its own: two guests at a time would
    show in each other's figures. `steps` are the lines to come. Raises GuestFailedError, and
    InterruptedInGuestError for a KeyboardInterrupt while it measures.
    """
    with _guest(errand) as guest, plan.progress(what, steps) as advance:
        shown = 0

        def ended() -> bool:
            nonlocal shown
            now = len(_lines(guest))
            advance(now - shown)
            shown = now
            return not guest.running

        try:
            wait_until(ended, "the guest to have measured", _SECONDS)
        except KeyboardInterrupt as error:
            raise InterruptedInGuestError(_figures(guest)) from error
        lines = _figures(guest)
        try:
            failed = bool(guest.wait(1))
        except LabError as error:
            raise GuestFailedError(str(error), lines) from error
        if failed:
            raise GuestFailedError(guest.said(), lines)
        return lines


def _guest(errand: Errand) -> Guest:
    argv = [sys.executable, "-m", errand.module, errand.order]
    prepare = partial(prepare_office, pairs=errand.pairs)
    return Guest(argv, _ROOT, prepare=prepare)


def _figures(guest: Guest) -> list[Figures]:
    return [json.loads(line) for line in _lines(guest)]


def _lines(guest: Guest) -> list[str]:
    """Return the lines that are written in whole."""
    path = guest.directory / _RESULTS
    return path.read_text().split("\n")[:-1] if path.exists() else []

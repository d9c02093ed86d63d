"""How much is measured, where, and how that is shown."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import click

from carnet.progress import Advance, progress_bar

FEWEST_ROUNDS = 5
_SAID_SECONDS = 20.0
"""After which is said how far a measurement is, where there is no bar."""


@dataclass(frozen=True)
class Plan:
    """One run: of everything, or of a little of everything."""

    directory: Path
    """For the run alone; gone afterwards."""
    quick: bool
    """Within five minutes in all: fewer rows of each table, and of each the fewest rounds."""
    suites: tuple[str, ...] = ()
    """Of the paper's evaluation, by name; none: all."""

    def rounds(self, whole: int) -> int:
        """Return how many rounds there are, given those of a whole run; five at least."""
        return FEWEST_ROUNDS if self.quick else max(FEWEST_ROUNDS, whole)

    def size(self, whole: int, quick: int) -> int:
        """Return how large something is: of the whole run, or of the quick one."""
        return quick if self.quick else whole

    def place(self) -> Path:
        """Return a new directory of the run's."""
        return Path(mkdtemp(dir=self.directory))

    @contextmanager
    def progress(self, what: str, steps: int) -> Iterator[Advance]:
        """Yield what moves a progress bar on; where no terminal shows one, say it now and then."""
        if not sys.stderr.isatty():
            yield _told(what, steps)
            return
        with progress_bar(what, steps, wanted=None) as advance:
            yield advance


def _told(what: str, of: int) -> Advance:
    """Return what says now and then how far it is."""
    done, said = 0, time.monotonic()

    def advance(steps: int = 1) -> None:
        nonlocal done, said
        done += steps
        if time.monotonic() - said >= _SAID_SECONDS:
            click.echo(f"  {what}: {done} of {of}", err=True)
            said = time.monotonic()

    return advance

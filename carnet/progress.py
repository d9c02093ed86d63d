"""A progress bar on standard error, where a person sees it.

It is drawn by who moves it: a thread of its own might still be there as Python ends, after
an interrupt for one.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Advance(Protocol):
    """What moves a bar on, by one unless told otherwise."""

    def __call__(self, steps: int = 1) -> None:
        """Move it."""


_REDRAWN_SECONDS = 0.1
"""At the soonest; a step may take much less."""
Bars = Callable[[str, int], AbstractContextManager[Advance]]
"""What makes a bar: what is done, and how many steps there are."""


@contextmanager
def progress_bar(what: str, total: int, *, wanted: bool | None) -> Iterator[Advance]:
    """Yield what moves the bar; it shows on a terminal, or always if wanted."""
    console = Console(stderr=True, force_terminal=wanted or None)
    shown = sys.stderr.isatty() if wanted is None else wanted
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not shown, auto_refresh=False
    )
    with bar as progress:
        task, drawn = progress.add_task(what, total=total), 0.0

        def advance(steps: int = 1) -> None:
            nonlocal drawn
            progress.advance(task, steps)
            if shown and time.monotonic() - drawn >= _REDRAWN_SECONDS:
                progress.refresh()
                drawn = time.monotonic()

        yield advance


@contextmanager
def no_bar(what: str, total: int) -> Iterator[Advance]:  # noqa: ARG001  as progress_bar() has them
    """Show nothing: where nobody looks."""
    yield lambda steps=1: None  # noqa: ARG005

"""A progress bar on standard error, where a person sees it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Advance(Protocol):
    """What moves a bar on, by one unless told otherwise."""

    def __call__(self, steps: int = 1) -> None:
        """Move it."""


Bars = Callable[[str, int], AbstractContextManager[Advance]]
"""What makes a bar: what is done, and how many steps there are."""


@contextmanager
def progress_bar(what: str, total: int, *, wanted: bool | None) -> Iterator[Advance]:
    """Yield what moves the bar; it shows on a terminal, or always if wanted."""
    console = Console(stderr=True, force_terminal=wanted or None)
    shown = sys.stderr.isatty() if wanted is None else wanted
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps=1: progress.advance(task, steps)


@contextmanager
def no_bar(what: str, total: int) -> Iterator[Advance]:  # noqa: ARG001  as progress_bar() has them
    """Show nothing: where nobody looks."""
    yield lambda steps=1: None  # noqa: ARG005

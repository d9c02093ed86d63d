"""A progress bar on standard error, where a person sees it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(what: str, total: int, *, wanted: bool | None) -> Iterator[Callable[[], None]]:
    """Yield what moves the bar by one; it shows on a terminal, or always if wanted."""
    console = Console(stderr=True, force_terminal=wanted or None)
    shown = sys.stderr.isatty() if wanted is None else wanted
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)

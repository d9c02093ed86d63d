"""Who let somebody wait in vain a moment ago is asked briefly first, before it is waited for again.

One command asks a daemon several times, and one that is stopped answers none: each would wait
for a whole time limit, and the person for all of them.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

BRIEF_SECONDS = 0.5
"""In which whoever is well again answers the least question."""
LATELY_SECONDS = 10.0
"""For which it is remembered; then it is waited for as the first time."""


class Unanswered:
    """The sockets at which nobody answered in time, of one process; for several threads."""

    def __init__(self) -> None:
        self._since: dict[Path, float] = {}
        self._lock = threading.Lock()

    def lately(self, at: Path) -> bool:
        """Tell whether somebody waited there in vain, a moment ago."""
        with self._lock:
            since = self._since.get(at)
        return since is not None and time.monotonic() - since < LATELY_SECONDS

    def ask_first(self, at: Path, ask: Callable[[float], object]) -> None:
        """Where it was so, `ask` something within so many seconds; raises what that raises."""
        if self.lately(at):
            ask(BRIEF_SECONDS)
            with self._lock:
                self._since.pop(at, None)

    @contextmanager
    def noted(self, at: Path, *kinds: type[Exception]) -> Iterator[None]:
        """Note where an error of these kinds says that somebody has waited there in vain.

        A brief wait is none: it does not make the memory of a whole one last longer.
        """
        try:
            yield
        except kinds:
            if not self.lately(at):
                with self._lock:
                    self._since[at] = time.monotonic()
            raise


unanswered = Unanswered()
"""This process's."""

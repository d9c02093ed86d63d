"""What fails again and again, of several things: a line as each begins, one as it is over."""

import threading

from structlog.typing import FilteringBoundLogger

from carnet.errors import IPsecError
from carnet.trouble import Trouble

_MOST = 256
"""So many are remembered; the eldest is told anew if there are more."""


class Troubles:
    """One kind of trouble of several things. Safe to use from several threads."""

    def __init__(self, log: FilteringBoundLogger, begins: str, is_over: str) -> None:
        """Log the events `begins`, with the reason, and `is_over`, and what they are about."""
        self._log = log
        self._begins = begins
        self._is_over = is_over
        self._lock = threading.Lock()
        self._having: dict[tuple[tuple[str, str], ...], Trouble] = {}

    def tell(self, error: Exception, **about: str) -> None:
        """Say that something of this failed, unless it did before, and for the same reason."""
        with self._lock:
            key = tuple(sorted(about.items()))
            if key not in self._having:
                self._having[key] = Trouble(self._log.bind(**about), self._begins, self._is_over)
            while len(self._having) > _MOST:
                del self._having[next(iter(self._having))]
            if isinstance(error, IPsecError):
                self._having[key].tell(error.sentence)
            else:
                self._having[key].tell_unforeseen(error)

    def over(self, **about: str) -> None:
        """Say that nothing of this failed any more, if something did before."""
        with self._lock:
            trouble = self._having.pop(tuple(sorted(about.items())), None)
            if trouble is not None:
                trouble.over()

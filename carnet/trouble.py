"""What fails and is tried again, for days perhaps: a line as it begins, and one as it is over."""

from structlog.typing import FilteringBoundLogger


class Trouble:
    """One kind of trouble of one thing; for one thread."""

    def __init__(self, log: FilteringBoundLogger, begins: str, is_over: str) -> None:
        """Log the events `begins`, with the reason, and `is_over`."""
        self._log = log
        self._begins = begins
        self._is_over = is_over
        self._reason: str | None = None

    def tell(self, reason: str) -> None:
        """Say that something failed, unless it did before, and for the same reason."""
        if reason != self._reason:
            self._log.warning(self._begins, reason=reason)
        self._reason = reason

    def tell_unforeseen(self, error: Exception) -> None:
        """Do the same for a fault that nobody has thought of, with where it came from."""
        reason = f"{type(error).__name__}: {error}"
        if reason != self._reason:
            self._log.error(self._begins, reason=reason, exc_info=error)
        self._reason = reason

    def over(self) -> None:
        """Say that it did not fail any more, if it did before."""
        if self._reason is not None:
            self._log.info(self._is_over)
        self._reason = None

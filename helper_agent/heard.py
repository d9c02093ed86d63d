"""What was told of tunnels and not looked at yet: who looks takes all of it at once.

So whoever has much told of a tunnel delays nobody's look by more than one, and the daemon, which
keeps what it has to tell, is always listened to.
"""

import threading
from collections.abc import Iterable

from carnet.ipsec.driver import Change, TunnelEvent

Told = dict[str, set[Change]]
"""What happened, by the tunnel's name."""


class Heard:
    """For one thread that listens, and one that takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._told: Told = {}
        self._is_over = False
        self._trouble: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether no more will be told by whom it listened to."""
        return self._is_over

    def listen(self, events: Iterable[TunnelEvent]) -> None:
        """Take in what is told until there is no more."""
        try:
            for event in events:
                self.tell(event)
        except Exception as error:  # noqa: BLE001  take() raises it
            self._trouble = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def tell(self, event: TunnelEvent) -> None:
        """Have it taken, too; safe to call from any thread."""
        with self._changed:
            self._told.setdefault(event.name, set()).add(event.change)
            self._changed.notify_all()

    def take(self) -> Told:
        """Return what was told since, once there is anything; nothing: no more will be.

        Raises instead what kept it from listening on.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._told or self._is_over)
            told, self._told = self._told, {}
        if not told and self._trouble is not None:
            raise self._trouble
        return told

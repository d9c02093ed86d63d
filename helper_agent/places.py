"""Places for what waits for a peer, which are few: each holds one of the IPsec daemon's threads.

strongSwan's charon has sixteen for all that it does, of which userspace ESP leaves seven idle, and
while a peer is silent each negotiation that somebody waits for holds one. Were all held, nobody's
tunnel could be ended.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from carnet.errors import IPsecError


class Places:
    """So many for each user and so many for all; for several threads."""

    def __init__(self, per_user: int, for_all: int, seconds: float) -> None:
        """Have a place waited for so long; 0: not at all."""
        self._per_user = per_user
        self._for_all = for_all
        self._seconds = seconds
        self._taken: Counter[int] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, uid: int) -> Iterator[None]:
        """Take one of hers. Raises IPsecError if there is none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_free(uid), self._seconds):
                raise IPsecError(
                    "Too many tunnels are being negotiated on this machine; try again soon."
                )
            self._taken[uid] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[uid] -= 1
                self._changed.notify_all()

    def _is_free(self, uid: int) -> bool:
        return self._taken[uid] < self._per_user and self._taken.total() < self._for_all

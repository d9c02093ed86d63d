"""Places for what all users want at once: so many for each, and so many for all.

What waits for a peer has few: each holds one of the IPsec daemon's threads. strongSwan's charon
has sixteen for all that it does, of which userspace ESP leaves seven idle, and while a peer is
silent each negotiation that somebody waits for holds one. Were all held, nobody's tunnel could be
ended.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from carnet.errors import IPsecError

_FULL = "Too many tunnels are being negotiated on this machine; try again soon."


class Places:
    """So many for each user and so many for all; for several threads."""

    def __init__(
        self, per_user: int, for_all: int, seconds: float = 0, *, one_kept: bool = False
    ) -> None:
        """Have a place waited for so long; 0: not at all.

        Where `one_kept` is set, each user has one place also where those for all are taken.
        """
        self._one_kept = one_kept
        self._per_user = per_user
        self._for_all = for_all
        self._seconds = seconds
        self._taken: Counter[int] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, uid: int) -> Iterator[None]:
        """Take one of hers. Raises IPsecError if there is none in time."""
        if not self.take(uid):
            raise IPsecError(_FULL)
        try:
            yield
        finally:
            self.give(uid)

    def take(self, uid: int) -> bool:
        """Take one of hers until give(); tell whether there is one in time."""
        with self._changed:
            free = self._changed.wait_for(lambda: self._is_free(uid), self._seconds)
            if free:
                self._taken[uid] += 1
            return free

    def give(self, uid: int) -> None:
        """Give one of hers back."""
        with self._changed:
            self._taken -= Counter({uid: 1})
            self._changed.notify_all()

    def _is_free(self, uid: int) -> bool:
        has_one = self._taken[uid] > 0 or not self._one_kept
        is_full = has_one and self._taken.total() >= self._for_all
        return self._taken[uid] < self._per_user and not is_full

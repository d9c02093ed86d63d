"""Who counts by herself among those who call: root, a member, and whose something here is.

The machine's user database may be a directory on a network, and slow. So it is never asked by
whoever takes calls for all, nor where it is known already as whom somebody counts who ends what is
hers, and its answers are remembered for a while.
"""

import threading
import time
from collections.abc import Callable

NO_MEMBER = -1
"""Instead of the user id of whoever is none of those: all of them have places as one user has."""
NOT_ASKED = -2
"""Instead of that of whom nobody has asked for yet; so do all of these."""
_SECONDS = 10.0
"""For which an answer is good."""
_MOST = 1024
"""So many answers are remembered."""


class Callers:
    """What is known of users by their ids. Safe to use from several threads."""

    def __init__(
        self,
        is_member: Callable[[int], bool],
        has_any: Callable[[int], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask these: the first may take long."""
        self._ask = is_member
        self._has_any = has_any
        self._clock = clock
        self._lock = threading.Lock()
        self._members: dict[int, tuple[bool, float]] = {}
        self._alone: set[int] = set()
        """Who counted by herself as that was looked at last, however long ago."""

    def known(self, uid: int) -> int:
        """Return as whom she counts by what is known already."""
        with self._lock:
            if uid == 0 or uid in self._alone:
                return uid
            return NOT_ASKED if self._remembered(uid) is None else NO_MEMBER

    def counted(self, uid: int) -> int:
        """Return as whom she counts, having asked."""
        self.is_member(uid)
        with self._lock:
            return uid if uid == 0 or uid in self._alone else NO_MEMBER

    def is_member(self, uid: int) -> bool:
        """Tell whether she is root or a member, as of a while ago at most."""
        with self._lock:
            found = self._remembered(uid)
        if uid == 0 or found is not None:
            return uid == 0 or bool(found)
        member = self._ask(uid)
        self._remember(uid, member=member, alone=member or self._has_any(uid))
        return member

    def _remembered(self, uid: int) -> bool | None:
        member, since = self._members.get(uid, (False, float("-inf")))
        return member if self._clock() - since < _SECONDS else None

    def _remember(self, uid: int, *, member: bool, alone: bool) -> None:
        with self._lock:
            self._members.pop(uid, None)
            self._members[uid] = (member, self._clock())
            (self._alone.add if alone else self._alone.discard)(uid)
            while len(self._members) > _MOST:
                del self._members[next(iter(self._members))]

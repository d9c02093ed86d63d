"""How many requests may come near the token, of one address and of all together.

Both limits are asked before anything is looked up, and of every well-formed request,
so that being put off tells nothing about which key pairs exist. Of each address all
its requests count. Of all together only those count that the token was asked to open;
until it is known whether one will be, it holds a place.
"""

import hashlib
import math
import secrets
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import (
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from carnet.doors import network_of
from host_agent.config import LimitsSection

_BUCKETS = 4096
"""Addresses are counted in so many groups, drawn anew at each start, so that nobody can
fill the memory with addresses, or choose with whom he shares a group."""
_LONGEST_SECONDS = 60


class Place:
    """A request that may reach the token."""

    def __init__(self, admission: "Admission") -> None:
        self._admission: Admission | None = admission

    def use(self) -> None:
        """Go to the token: this one counts."""
        if self._admission is not None:
            self._admission.count()
        self.give_back()

    def give_back(self) -> None:
        """Leave; a second time it has no effect."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.places -= 1


class Admission:
    """The limits of one Host."""

    def __init__(self, section: LimitsSection) -> None:
        storage = MemoryStorage()
        self._of_one = SlidingWindowCounterRateLimiter(storage)
        self._of_all = MovingWindowRateLimiter(storage)
        self._per_address = parse(section.per_address)
        self._hsm = parse(section.hsm)
        self._salt = secrets.token_bytes(16)
        self.places = 0
        """Requests of which it is not known yet whether they reach the token."""

    def ask(self, address: str) -> Place | int:
        """Return a place near the token, or after how many seconds to ask again."""
        seconds = self.look(address)
        if seconds is not None:
            return seconds
        if not self._of_all.test(self._hsm, cost=self.places + 1):
            return _wait(self._of_all, self._hsm)
        self.places += 1
        return Place(self)

    def look(self, address: str) -> int | None:
        """Count a question that comes near no token; after how many seconds to ask again."""
        group = self._group(address)
        if self._of_one.hit(self._per_address, group):
            return None
        return _wait(self._of_one, self._per_address, group)

    def count(self) -> None:
        """Count a request that reaches the token."""
        self._of_all.hit(self._hsm)

    def _group(self, address: str) -> str:
        network = network_of(address).encode()
        digest = hashlib.blake2b(network, key=self._salt, digest_size=8).digest()
        return str(int.from_bytes(digest, "big") % _BUCKETS)


def _wait(limiter: RateLimiter, item: RateLimitItem, *names: str) -> int:
    """Return whole seconds until there is room, as far as that can be told."""
    seconds = limiter.get_window_stats(item, *names).reset_time - time.time()
    return min(max(1, math.ceil(seconds)), _LONGEST_SECONDS)

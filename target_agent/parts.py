"""What every request and every tunnel needs of the Target."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from carnet.errors import AwayError
from carnet.exchange.machine import Event
from carnet.ipsec.driver import Driver
from target_agent.addresses import AddressPools
from target_agent.alarm import Alarm
from target_agent.config import TargetConfig
from target_agent.daemon_threads import Endings, ask
from target_agent.gate import Gate
from target_agent.members import Members
from target_agent.metrics import TargetMetrics
from target_agent.orders import Orders
from target_agent.reach import Reach
from target_agent.records import Records

P = ParamSpec("P")
T = TypeVar("T")

Later = Callable[[float, bytes, Event], asyncio.TimerHandle]
"""Feeds an event to the tunnel of a Request ID, after so many seconds."""
FeedAt = Callable[[float, bytes, Event], Alarm]
"""Feeds an event to the tunnel of a Request ID, at that moment (seconds since 1970)."""


@dataclass(frozen=True)
class Parts:
    """The parts of one running Target."""

    config: TargetConfig
    driver: Driver
    members: Members
    records: Records
    orders: Orders
    pools: AddressPools
    gate: Gate | None
    """None: no tunnels without IPsec."""
    later: Later
    feed_at: FeedAt
    watched: asyncio.Event
    """Set while it is heard what happens in the IKE daemon."""
    metrics: TargetMetrics = field(default_factory=TargetMetrics)
    reach: Reach = field(default_factory=Reach)
    endings: Endings = field(default_factory=Endings)

    async def ask(self, call: Callable[P, T], *about: P.args, **named: P.kwargs) -> T:
        """Ask or tell the daemon (daemon_threads.ask); raises likewise, and counts its silence."""
        with self._silence_counted():
            return await ask(call, *about, **named)

    async def end(self, end: Callable[P, T], *about: P.args, **named: P.kwargs) -> T:
        """End a tunnel when it is its turn (Endings.do); raises and counts likewise."""
        with self._silence_counted():
            return await self.endings.do(end, *about, **named)

    @contextmanager
    def _silence_counted(self) -> Iterator[None]:
        try:
            yield
        except AwayError:
            self.metrics.count_daemon_error()
            raise

"""One request and then its tunnel: one run of the Target's table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from carnet.exchange.machine import Action, Event, run_async
from carnet.exchange.target import Arrived, State, machine
from carnet.exchange.target_actions import AwaitExpiry, AwaitIKE
from carnet.objectives import Objective
from carnet.wire.control import TunnelGrant
from target_agent.answering import PERFORMERS, Answering
from target_agent.live import LiveTunnel
from target_agent.parts import Parts
from target_agent.records import Asking, TunnelRecord

_LIVE = frozenset(
    {
        State.PREPARED,
        State.CONFIRMING,
        State.FORGETTING,
        State.ESTABLISHING,
        State.ESTABLISHED,
        State.ENDING,
        State.CLOSING,
    }
)


class Exchange:
    """The machine of one request, and whoever carries out its actions.

    Feed one event at a time: whoever does holds the lock of the Request ID.
    """

    def __init__(self, parts: Parts, request_id: bytes, user_id: str, host: str) -> None:
        self._parts = parts
        self._machine = machine()
        self._answering: Answering | None = None
        self._tunnel: LiveTunnel | None = None
        self._enders = 0
        self.request_id = request_id
        self.user_id = user_id
        self.host = host

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._machine.state

    @property
    def is_live(self) -> bool:
        """Whether there is a tunnel, or what may be left of one."""
        return self.state in _LIVE

    @property
    def objective(self) -> Objective | None:
        """What its tunnel is made of; None before there is one."""
        return self._tunnel.objective if self._tunnel else None

    async def answer(self, asking: Asking) -> Answering:
        """Answer a request (steps 4 to 6); return the answer with all that led to it."""
        self._answering = Answering(self._parts, asking, self.request_id)
        await self.feed(Arrived(asking.statement, asking.host))
        return self._answering

    def abandon(self) -> None:
        """Give up what failed, in a way that nobody expected, before it was recorded."""
        if self._answering is not None:
            self._answering.abandon()

    @contextmanager
    def about_to_end(self) -> Iterator[None]:
        """Have nothing else be fed to it that waits for its turn now, so that its end is next."""
        self._enders += 1
        try:
            yield
        finally:
            self._enders -= 1

    @property
    def is_about_to_end(self) -> bool:
        """Whether somebody waits for the turn to end it."""
        return self._enders > 0

    async def take_up(self, record: TunnelRecord) -> None:
        """Go on with a live tunnel after a restart, from its record."""
        answer = record.tunnel_answer
        if not isinstance(answer, TunnelGrant):
            raise TypeError("a live tunnel rests on a grant")
        doomed = record.end_reason is not None
        self._machine = machine(State.ENDING if doomed else State(record.state))
        self._tunnel = LiveTunnel(
            self._parts,
            self.request_id,
            answer.tunneling_info,
            record.answered_at,
            record.driver,
            record.end_reason,
        )
        waiting = AwaitIKE() if self.state is State.PREPARED else AwaitExpiry()
        await self._tunnel.perform(waiting)

    @property
    def end_is_written(self) -> bool:
        """Whether no restart forgets that its tunnel is to end, and why."""
        return self._tunnel is not None and self._tunnel.end_is_written

    @property
    def is_away(self) -> bool:
        """Whether the Client is silent, and waited for; a restarted Target knows of none."""
        stands = self.state is State.ESTABLISHED
        return stands and self._tunnel is not None and self._tunnel.is_away

    async def let_through(self, address: str) -> None:
        """Open the gate again for a session that stood before a restart.

        Raises IPsecError if the packet filter refuses.
        """
        if self._tunnel is not None:
            await self._tunnel.let_through(address)
            if self.state is not State.ESTABLISHED:
                await self._tunnel.shut_out()  # it has ended meanwhile, perhaps before this

    @property
    def may_come_back(self) -> bool:
        """Whether the session goes on without an SA, until its time is over."""
        stands = self.state is State.ESTABLISHED
        return stands and self._tunnel is not None and self._tunnel.may_come_back

    def daemon_gone(self) -> None:
        """Hear that the IKE daemon went, which matters to what is to be taken out of it."""
        if self.state is State.ENDING and self._tunnel is not None:
            self._tunnel.daemon_gone()

    async def feed(self, event: Event) -> None:
        """Feed an event, and carry out all that follows from it."""
        await run_async(self._machine, event, self._perform)

    async def _perform(self, action: Action) -> Event | None:
        if self._answering is not None and type(action) in PERFORMERS:
            return await self._answering.perform(action)
        return await self._live_tunnel().perform(action)

    def _live_tunnel(self) -> LiveTunnel:
        if self._tunnel is None:
            grant = self._answering.grant if self._answering else None
            if grant is None:
                raise TypeError("a live tunnel rests on a grant")
            info, made_with = grant.tunneling_info, self._parts.driver.name
            self._tunnel = LiveTunnel(self._parts, self.request_id, info, time.time(), made_with)
        return self._tunnel

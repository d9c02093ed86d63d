"""The Target's Tunnel Agent: every request, and every live tunnel, of one Target."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from enum import Enum
from functools import partial
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from carnet.background import RESTART_SECONDS, Background
from carnet.database import readers
from carnet.errors import IPsecError
from carnet.exchange.machine import Event
from carnet.exchange.target import Over, State
from carnet.ipsec.driver import Change, Driver, TunnelEvent
from carnet.wire.control import TunnelEnded, TunnelRequest
from target_agent.addresses import AddressPools
from target_agent.alarm import Alarm
from target_agent.answering import Answering
from target_agent.comparing import Comparing, request_id_of
from target_agent.config import TargetConfig
from target_agent.evidence import claimed_request_id
from target_agent.exchange import Exchange
from target_agent.gate import Gate
from target_agent.gate_watch import keep_gate
from target_agent.happenings import TOLD, event_of, merged
from target_agent.members import Members
from target_agent.obeying import Obeying
from target_agent.orders import Orders
from target_agent.parts import Parts
from target_agent.pool_block import PoolBlock
from target_agent.records import Asking, Records, TunnelRecord
from target_agent.watcher import Watcher

log = structlog.get_logger()

ENDED_SECONDS = 2.0
"""Within which a tunnel that is being ended mostly has ended. Whoever asks for it is told that it
has yet to: a traveller's agent hears no answer that comes much later, and asks again."""
_TUNNELS = "tunnels"
"""Among what is done beside the requests: what follows from each tunnel's events."""
_FAILED = "failed"
"""Why a tunnel ended of which this agent failed to do something."""


class Ending(Enum):
    """What came of the wish to end a tunnel."""

    DONE = "done"
    WAITING = "waiting"
    """The IKE daemon does not answer; the tunnel ends as soon as it does."""
    UNWRITTEN = "unwritten"
    """The same, and the database does not answer: a restart forgets it, so it is asked again."""
    UNRECORDED = "unrecorded"
    """It is no more, and the database does not answer; it is written down as soon as that does."""
    NOT_LIVE = "not live"


_ENDING = (State.ENDING, State.CLOSING)
_CAME_OF = {State.ENDED: Ending.DONE, State.CLOSING: Ending.UNRECORDED}
"""By where the exchange stands then."""


class Agent:
    """Feeds the machines: with requests, with time, and with what the IKE daemon does.

    All of it in one event loop; events of one Request ID are fed one after another.
    """

    def __init__(
        self,
        config: TargetConfig,
        driver: Driver,
        engine: Engine,
        gate: Gate | None = None,
        pool_block: PoolBlock | None = None,
    ) -> None:
        self.records = Records(engine)
        self._pool_block = pool_block
        self._watched = asyncio.Event()
        open_records = self.records.live()
        taken = [each.virtual_address for each in open_records if each.virtual_address]
        pools = AddressPools(config.tunnels.pools, taken)
        self._parts = Parts(
            config,
            driver,
            Members(engine),
            self.records,
            Orders(engine),
            pools,
            gate,
            self._later,
            self._feed_at,
            self._watched,
        )
        self._open_records = open_records
        self._live: dict[bytes, Exchange] = {}
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._happened: dict[bytes, Change] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._end_told = asyncio.Condition()
        self._stopping = False
        self._watcher = Watcher(driver, self)
        self._comparing = Comparing(
            driver, pools, self._live, self.feed_live, self._parts.metrics.count_daemon_error
        )
        self._obeying = Obeying(self._parts.orders, self.records, self.end, self.end_all_of)
        self.metrics = self._parts.metrics
        self.background = Background(self.metrics.count_failure, self.metrics.expect_failures)
        self.metrics.expect_failures(_TUNNELS)
        self.metrics.show_agent(self)
        if gate is not None:
            gate.count_gone = self.metrics.count_gate_gone

    async def start(self) -> None:
        """Take up what was live, and look once what the IKE daemon still has of it.

        Raises IPsecError if the pools cannot be closed, or the gate cannot be shut.
        """
        block = self._pool_block
        if block is not None:
            taken = [each.virtual_address for each in self._open_records if each.virtual_address]
            await self._parts.ask(block.close, taken)
            self.background.start("pool block", partial(keep_gate, block))
        gate = self._parts.gate
        if gate is not None:
            await self._parts.ask(gate.shut)
            self.background.start("gate", partial(keep_gate, gate))
        for record in self._open_records:
            await self._take_up(record)
        self.background.start("ike-watcher", self._watch)
        self.background.start("ike-daemon comparison", self._comparing.keep)
        self.background.start("lost clients", self._comparing.keep_lost)
        await self._comparing.looked.wait()
        self.background.start("orders", self._obeying.keep)

    async def _take_up(self, record: TunnelRecord) -> None:
        exchange = Exchange(self._parts, record.request_id, record.user_id, record.host)
        await exchange.take_up(record)
        self._live[record.request_id] = exchange

    async def stop(self) -> None:
        """Stop watching; live tunnels stay up, and are taken up again at the next start.

        So is what is to end: what is being tried is waited for, and none of it is tried again.
        A daemon that is silent would be waited for without end.
        """
        await self.stop_telling()
        async with self._comparing.alone:
            await self.background.stop()
        await self._watcher.stop()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._pool_block is not None and not await self._lives_any():
            try:
                await self._parts.ask(self._pool_block.lift)
            except IPsecError as error:  # what stays is closed, and not open
                log.warning("pool-block-stays", reason=error.sentence)

    async def _lives_any(self) -> bool:
        """Tell whether any session lives, one that was lost sight of included."""
        try:
            return bool(await readers.ask(self.records.live))
        except SQLAlchemyError:
            return True

    def renew(self, config: TargetConfig) -> None:
        """Answer by another configuration from now on; the pools stay what they are.

        Its networks are guarded first. Raises IPsecError if the gate does not: then all stays.
        """
        if self._parts.gate is not None:
            self._parts.gate.guard(config.tunnels.networks)
        self._parts = replace(self._parts, config=config)

    def live_tunnels(self) -> list[tuple[str, str]]:
        """Return the objective and the state of each live tunnel."""
        return [
            (each.objective.label, each.state)
            for each in self._live.values()
            if each.objective is not None
        ]

    @property
    def addresses(self) -> dict[int, tuple[int, int]]:
        """How many virtual addresses are taken, and how many there are, by IP version."""
        return self._parts.pools.counts

    @property
    def under_way(self) -> int:
        """Of how many Request IDs something is being done just now."""
        return len(self._locks)

    @property
    def events(self) -> int:
        """How many events wait to be fed, or are being fed."""
        return len(self._tasks)

    async def check_daemon(self) -> None:
        """Ask the IKE daemon whether it answers; raises IPsecError."""
        await self._parts.ask(self._parts.driver.capabilities)

    async def answer(self, statement: TunnelRequest, host: str) -> Answering:
        """Answer a Host (steps 4 to 6); the same Request ID at the same time, once.

        Raises WireError for evidence that is no signed request.
        """
        request_id = claimed_request_id(statement)
        exchange = Exchange(self._parts, request_id, statement.user_id, host)
        async with self._alone(request_id):
            # Known before it is live, so that neither a sweep nor an end misses it.
            kept = self._live.setdefault(request_id, exchange)
            try:
                answering = await exchange.answer(Asking(statement, host))
            except Exception:
                if not exchange.is_live:
                    exchange.abandon()
                    self._comparing.needed()
                raise
            else:
                if answering.abandoned:
                    self._comparing.needed()
                self.metrics.count_request(answering.outcome)
                return answering
            finally:
                if not kept.is_live:
                    del self._live[request_id]

    async def end(
        self, request_id: bytes, reason: str, *, host: str | None = None, user_id: str | None = None
    ) -> Ending:
        """End a tunnel, if it is of that Host and of that user.

        What has happened to it meanwhile is waited for no more.
        """

        def meant() -> Exchange | None:
            found = self._live.get(request_id)
            of_them = found and host in (None, found.host) and user_id in (None, found.user_id)
            return found if of_them else None

        before = meant()
        with before.about_to_end() if before else contextlib.nullcontext():
            async with self._alone(request_id):
                exchange = meant()
                if exchange is None:
                    return Ending.NOT_LIVE
                await self._feed(exchange, Over(reason))
        waiting = Ending.WAITING if exchange.end_is_written else Ending.UNWRITTEN
        return _CAME_OF.get(exchange.state, waiting)

    async def end_all_of(self, user_id: str, reason: str) -> dict[bytes, Ending]:
        """End all tunnels of a user, those that are being answered just now included."""
        ids = {*self._live, *self._locks}
        # At the same time: each may wait for the IKE daemon as long as that is silent.
        endings = await asyncio.gather(*(self.end(each, reason, user_id=user_id) for each in ids))
        found = zip(ids, endings, strict=True)
        return {each: done for each, done in found if done is not Ending.NOT_LIVE}

    async def ended(self, host: str, after: int, seconds: float) -> tuple[TunnelEnded, ...]:
        """Return what ended of a Host's tunnels after that number; wait for it if need be."""
        try:
            async with asyncio.timeout(seconds), self._end_told:
                while True:
                    found = await readers.ask(self.records.ended_after, host, after)
                    if found or self._stopping:
                        return found
                    await self._end_told.wait()
        except TimeoutError:
            return ()

    async def end_of(self, host: str, request_id: bytes, seconds: float) -> TunnelRecord | None:
        """Return the record of a Host's tunnel that ended; wait for its end if need be.

        One that is just being ended is not said to live: its end is waited for some seconds
        more. None if it lives on, or this Host has no such tunnel.
        """
        record = await self._end_within(host, request_id, seconds)
        if record is None and not self._lives_on(request_id):
            record = await self._end_within(host, request_id, ENDED_SECONDS)
        return record

    def is_ending(self, host: str, request_id: bytes) -> bool:
        """Tell whether a Host's tunnel is just being ended."""
        exchange = self._live.get(request_id)
        return exchange is not None and exchange.host == host and exchange.state in _ENDING

    def _lives_on(self, request_id: bytes) -> bool:
        exchange = self._live.get(request_id)
        return exchange is not None and exchange.state not in _ENDING

    async def _end_within(
        self, host: str, request_id: bytes, seconds: float
    ) -> TunnelRecord | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._end_told:
                while True:
                    record = await readers.ask(self.records.find, request_id)
                    if record is None or record.host != host or record.state == "refused":
                        return None
                    if record.state == "ended":
                        return record
                    if self._stopping:
                        return None
                    await self._end_told.wait()
        return None

    async def stop_telling(self) -> None:
        """Have every ended() and end_of() return, and no tunnel hear of anything more."""
        async with self._end_told:
            self._stopping = True
            self._end_told.notify_all()

    def daemon_answers(self) -> None:
        """Have what is live compared with what the IKE daemon has."""
        self._watched.set()
        self._comparing.daemon_answers()

    def daemon_silent(self, sentence: str) -> None:
        """Say so; requests are deferred until it answers."""
        log.warning("ike-daemon-silent", reason=sentence)
        self._is_away()
        self._comparing.daemon_silent()

    def daemon_gone(self) -> None:
        """Say so; what was prepared is lost, and what was not fed yet is found by comparing."""
        log.warning("ike-daemon-gone")
        self._is_away()
        self._happened.clear()
        for exchange in self._live.values():
            exchange.daemon_gone()
        self._comparing.daemon_gone()

    def _is_away(self) -> None:
        self.metrics.count_daemon_error()
        self._watched.clear()

    def happened(self, event: TunnelEvent) -> None:
        """Feed what happened to a tunnel, as soon as what is done with it just now is done."""
        request_id = request_id_of(event.name)
        if request_id is None or event.change not in TOLD:
            return
        waiting = self._happened.get(request_id)
        self._happened[request_id] = merged(waiting, event.change)
        if waiting is None:
            self._spawn(self._feed_what_happened(request_id))

    async def _feed_what_happened(self, request_id: bytes) -> None:
        """Feed it, unless somebody waits to end the tunnel, or this stops."""
        async with self._alone(request_id):
            change = self._happened.pop(request_id, None)
            exchange = self._live.get(request_id)
            if exchange is None or exchange.is_about_to_end or self._stopping or change is None:
                return
            event = event_of(change, may_come_back=exchange.may_come_back)
            await self._feed(exchange, event)
            if exchange.is_away:
                self._comparing.client_lost()

    async def _watch(self) -> None:
        try:
            await self._watcher.watch()
        finally:
            self._watched.clear()
            self._comparing.looked.set()

    async def feed_live(self, request_id: bytes, event: Event) -> None:
        """Feed an event to a tunnel that may live; one that does not hears nothing.

        Nor does any once this stops.
        """
        async with self._alone(request_id):
            exchange = self._live.get(request_id)
            if exchange is not None and not self._stopping:
                await self._feed(exchange, event)

    async def _feed(self, exchange: Exchange, event: Event) -> None:
        """Feed an event, the lock being held; a tunnel of which anything fails is ended."""
        try:
            await exchange.feed(event)
        except Exception:
            log.exception("task-failed", task=_TUNNELS)
            self.metrics.count_failure(_TUNNELS)
            self._later(RESTART_SECONDS, exchange.request_id, Over(_FAILED))
        if exchange.state is State.ENDED:
            del self._live[exchange.request_id]
            async with self._end_told:
                self._end_told.notify_all()

    def _later(self, seconds: float, request_id: bytes, event: Event) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(seconds, lambda: self._spawn(self.feed_live(request_id, event)))

    def _feed_at(self, moment: float, request_id: bytes, event: Event) -> Alarm:
        return Alarm(moment, lambda: self._spawn(self.feed_live(request_id, event)))

    @contextlib.asynccontextmanager
    async def _alone(self, request_id: bytes) -> AsyncIterator[None]:
        """Do something with one request or its tunnel, named in every line of the log."""
        with bound_contextvars(request_id=request_id.hex()):
            async with self._lock(request_id):
                yield

    def _lock(self, request_id: bytes) -> asyncio.Lock:
        return self._locks.setdefault(request_id, asyncio.Lock())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("failed", exc_info=error)

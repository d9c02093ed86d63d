"""The Target's Tunnel Agent: every request, and every live tunnel, of one Target."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import replace
from enum import Enum
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import Engine
from structlog.contextvars import bound_contextvars

from carnet.background import RESTART_SECONDS, Background
from carnet.errors import IPsecError
from carnet.exchange.machine import Event
from carnet.exchange.target import CameUp, Over, State, WentSilent
from carnet.ipsec.driver import Change, Driver, TunnelEvent, TunnelStatus
from carnet.ipsec.spec import NAME_PREFIX
from carnet.tunnel import tunnel_name
from carnet.wire.control import TunnelEnded, TunnelRequest
from target_agent.addresses import AddressPools
from target_agent.alarm import Alarm
from target_agent.answering import Answering
from target_agent.config import TargetConfig
from target_agent.evidence import claimed_request_id
from target_agent.exchange import Exchange
from target_agent.gate import Gate
from target_agent.members import Members
from target_agent.parts import Parts
from target_agent.records import Asking, Records, TunnelRecord
from target_agent.watcher import Watcher

log = structlog.get_logger()

_TUNNELS = "tunnels"
"""Among what is done beside the requests: what follows from each tunnel's events."""
_OUT_OF_SIGHT = "peer-lost"
"""Why a tunnel ended that the IKE daemon has no more, where neither it nor this was restarted."""
_FAILED = "failed"
"""Why a tunnel ended of which this agent failed to do something."""


_COMING_UP = (State.CONFIRMING, State.FORGETTING, State.ESTABLISHING)
"""Its SA was seen up, and it is on its way to where a record says so."""


class Ending(Enum):
    """What came of the wish to end a tunnel."""

    DONE = "done"
    WAITING = "waiting"
    """The IKE daemon does not answer; the tunnel ends as soon as it does."""
    NOT_LIVE = "not live"


class Agent:
    """Feeds the machines: with requests, with time, and with what the IKE daemon does.

    All of it in one event loop; events of one Request ID are fed one after another.
    """

    def __init__(
        self, config: TargetConfig, driver: Driver, engine: Engine, gate: Gate | None = None
    ) -> None:
        self.records = Records(engine)
        self._watched = asyncio.Event()
        open_records = self.records.live()
        taken = [each.virtual_address for each in open_records if each.virtual_address]
        pools = AddressPools(config.tunnels.pools, taken)
        self._parts = Parts(
            config,
            driver,
            Members(engine),
            self.records,
            pools,
            gate,
            self._later,
            self._feed_at,
            self._watched,
        )
        self._open_records = open_records
        self._live: dict[bytes, Exchange] = {}
        self._stranded: set[bytes] = set()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._end_told = asyncio.Condition()
        self._stopping = False
        self._daemon_seen = False
        self._looked = asyncio.Event()
        self._watcher = Watcher(driver, self)
        self._differs = asyncio.Event()
        self._comparing = asyncio.Lock()
        self._reason = "restart"
        self.metrics = self._parts.metrics
        self.background = Background(self.metrics.count_failure)
        self.metrics.show_agent(self)

    async def start(self) -> None:
        """Take up what was live, and look once what the IKE daemon still has of it.

        Raises IPsecError if the gate cannot be shut.
        """
        if self._parts.gate is not None:
            await asyncio.to_thread(self._parts.gate.shut)
        for record in self._open_records:
            await self._take_up(record)
        self.background.start("ike-watcher", self._watch)
        self.background.start("ike-daemon comparison", self._keep_compared)
        await self._looked.wait()

    async def _take_up(self, record: TunnelRecord) -> None:
        exchange = Exchange(self._parts, record.request_id, record.user_id, record.host)
        await exchange.take_up(record)
        self._live[record.request_id] = exchange

    async def stop(self) -> None:
        """Stop watching; live tunnels stay up, and are taken up again at the next start."""
        async with self._comparing:
            await self.background.stop()
        await self._watcher.stop()
        await self.stop_telling()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def renew(self, config: TargetConfig) -> None:
        """Answer by another configuration from now on; the pools stay what they are."""
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
        await asyncio.to_thread(self._parts.driver.capabilities)

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
                    self._differs.set()
                raise
            else:
                if answering.abandoned:
                    self._differs.set()
                self.metrics.count_request(answering.outcome)
                return answering
            finally:
                if not kept.is_live:
                    del self._live[request_id]

    async def end(
        self, request_id: bytes, reason: str, *, host: str | None = None, user_id: str | None = None
    ) -> Ending:
        """End a tunnel, if it is of that Host and of that user."""
        async with self._alone(request_id):
            exchange = self._live.get(request_id)
            if exchange is None or not (
                host in (None, exchange.host) and user_id in (None, exchange.user_id)
            ):
                return Ending.NOT_LIVE
            await self._feed(exchange, Over(reason))
            return Ending.DONE if exchange.state is State.ENDED else Ending.WAITING

    async def end_all_of(self, user_id: str, reason: str) -> dict[bytes, Ending]:
        """End all tunnels of a user, those that are being answered just now included."""
        ids = {*self._live, *self._locks}
        endings = {each: await self.end(each, reason, user_id=user_id) for each in ids}
        return {each: done for each, done in endings.items() if done is not Ending.NOT_LIVE}

    async def ended(self, host: str, after: int, seconds: float) -> tuple[TunnelEnded, ...]:
        """Return what ended of a Host's tunnels after that number; wait for it if need be."""
        try:
            async with asyncio.timeout(seconds), self._end_told:
                while True:
                    found = await asyncio.to_thread(self.records.ended_after, host, after)
                    if found or self._stopping:
                        return found
                    await self._end_told.wait()
        except TimeoutError:
            return ()

    async def end_of(self, host: str, request_id: bytes, seconds: float) -> TunnelRecord | None:
        """Return the record of a Host's tunnel that ended; wait for its end if need be.

        None if it lives on, or this Host has no such tunnel.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._end_told:
                while True:
                    record = await asyncio.to_thread(self.records.find, request_id)
                    if record is None or record.host != host or record.state == "refused":
                        return None
                    if record.state == "ended":
                        return record
                    if self._stopping:
                        return None
                    await self._end_told.wait()
        return None

    async def stop_telling(self) -> None:
        """Have every ended() and end_of() return."""
        async with self._end_told:
            self._stopping = True
            self._end_told.notify_all()

    def daemon_answers(self) -> None:
        """Have what is live compared with what the IKE daemon has."""
        self._reason = "ike-daemon-restarted" if self._daemon_seen else "restart"
        self._daemon_seen = True
        self._watched.set()
        self._differs.set()

    def daemon_silent(self, sentence: str) -> None:
        """Say so; requests are deferred until it answers."""
        log.warning("ike-daemon-silent", reason=sentence)
        self.metrics.count_daemon_error()
        self._watched.clear()
        self._daemon_seen = True
        self._looked.set()

    def daemon_gone(self) -> None:
        """Remember what was prepared: the pre-shared keys went with the daemon."""
        log.warning("ike-daemon-gone")
        self.metrics.count_daemon_error()
        self._watched.clear()
        self._stranded |= self._in_state(State.PREPARED)

    def happened(self, event: TunnelEvent) -> None:
        """Feed what happened to a tunnel."""
        request_id = _request_id_of(event.name)
        if request_id is None:
            return
        if event.change is Change.LOST:
            self._spawn(self._lost(request_id))
        else:
            up = event.change is Change.UP
            self._spawn(self.feed_live(request_id, CameUp() if up else Over("peer-closed")))

    async def _lost(self, request_id: bytes) -> None:
        """Wait for a Client that is silent, where she may come back; else end the tunnel."""
        async with self._lock(request_id):
            exchange = self._live.get(request_id)
            if exchange is not None:
                away = exchange.may_come_back
                await self._feed(exchange, WentSilent() if away else Over("peer-lost"))

    async def _watch(self) -> None:
        try:
            await self._watcher.watch()
        finally:
            self._watched.clear()
            self._looked.set()

    async def _keep_compared(self) -> None:
        """Compare with the IKE daemon whenever they may differ, for ever."""
        while True:
            await self._differs.wait()
            async with self._comparing:
                await self._compare()

    async def _compare(self) -> None:
        self._differs.clear()
        reason, self._reason = self._reason, _OUT_OF_SIGHT
        try:
            await self._compare_with_daemon(frozenset(self._stranded), reason)
        except IPsecError as error:
            # It went away again; when it comes back, this is done again.
            log.warning("ike-daemon-silent", reason=error.sentence)
        except Exception:
            self._reason = reason
            self._differs.set()
            raise
        finally:
            self._looked.set()

    async def _compare_with_daemon(self, stranded: frozenset[bytes], reason: str) -> None:
        standing = self._in_state(State.ESTABLISHED, *_COMING_UP)
        unfinished = self._in_state(State.ENDING, State.CLOSING)
        statuses = await asyncio.to_thread(self._parts.driver.status)
        up = {_request_id_of(each.name) for each in statuses if each.established}
        waiting = await self._waiting_in_vain()
        gone = (standing - await self._away()) | stranded | waiting
        await self._feed_all((gone - up) | unfinished, Over(reason))
        await self._feed_all((up & self._live.keys()) - standing, CameUp())
        await self._let_through(statuses)
        withheld = self._parts.pools.stranded
        swept = await asyncio.to_thread(self._parts.driver.sweep, self._names_of_live)
        self._parts.pools.free(withheld)
        # One of the same Request ID may have been prepared while what it left was swept.
        lost = {_request_id_of(name) for name in swept} & self._live.keys()
        await self._feed_all(lost, Over(reason))
        self._stranded -= stranded
        log.info("ike-daemon-compared", live=len(self._live), swept=len(swept))

    def _names_of_live(self) -> frozenset[str]:
        """Return the tunnels to be kept, from whichever thread; a copy cannot change meanwhile."""
        return frozenset(map(tunnel_name, self._live.copy()))

    async def _let_through(self, statuses: list[TunnelStatus]) -> None:
        """Open the gate for the sessions that stand; it was shut when this service began."""
        for status in statuses:
            exchange = self._live.get(_request_id_of(status.name) or b"")
            if exchange is not None and exchange.state is State.ESTABLISHED:
                await exchange.let_through(status.remote_address)

    async def _away(self) -> set[bytes]:
        """Return the sessions whose silent Client may come back: the daemon has their keys.

        After a restart of this agent there are none: nobody saw whether she ended it.
        """
        resumable = await asyncio.to_thread(self._parts.driver.resumable)
        kept = {_request_id_of(name) for name in resumable}
        return {each for each, found in self._live.items() if each in kept and found.is_away}

    async def _waiting_in_vain(self) -> set[bytes]:
        """Return what is prepared by its record, and of which the IKE daemon knows nothing."""
        prepared = self._in_state(State.PREPARED)
        installed = await asyncio.to_thread(self._parts.driver.installed)
        return prepared - {_request_id_of(name) for name in installed}

    def _in_state(self, *states: State) -> set[bytes]:
        return {each for each, exchange in self._live.items() if exchange.state in states}

    async def _feed_all(self, request_ids: Iterable[bytes | None], event: Event) -> None:
        for request_id in request_ids:
            if request_id is not None:
                await self.feed_live(request_id, event)

    async def feed_live(self, request_id: bytes, event: Event) -> None:
        """Feed an event to a tunnel that may live; one that does not hears nothing."""
        async with self._alone(request_id):
            exchange = self._live.get(request_id)
            if exchange is not None:
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


def _request_id_of(name: str) -> bytes | None:
    try:
        return bytes.fromhex(name.removeprefix(NAME_PREFIX))
    except ValueError:
        return None

"""What lives by the records, held against what the IKE daemon has.

What happens there is told as events (target_agent.watcher); what happened while nobody
listened, or was left by something that failed, is found here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from carnet.errors import AwayError, IPsecError
from carnet.exchange.machine import Event
from carnet.exchange.target import CameUp, Over, State
from carnet.ipsec.driver import Driver, TunnelStatus
from carnet.ipsec.spec import NAME_PREFIX
from carnet.tunnel import tunnel_name
from target_agent.addresses import AddressPools
from target_agent.daemon_threads import ask
from target_agent.exchange import Exchange
from target_agent.live import DAEMON_RESTARTED, RESTART

log = structlog.get_logger()

_OUT_OF_SIGHT = "peer-lost"
"""Why a tunnel ended that the IKE daemon has no more, where neither it nor this was restarted."""

_UNLOADED = "unloaded"
"""Why it ended where somebody else had the IKE daemon forget what a Client would come by."""

AGAIN_SECONDS = 5.0
"""After a comparison that failed at an IKE daemon which is watched all the same, and after a Client
was lost: most of those who come anew are back by then, and for her who does so again and again
nothing is asked more often."""

_COMING_UP = (State.CONFIRMING, State.FORGETTING, State.ESTABLISHING)
"""Its SA was seen up, and it is on its way to where a record says so."""


class Comparing:
    """Compares whenever the two may differ; `feed` is how what it finds is told.

    `live` is what lives, by Request ID, as it is at any time.
    """

    def __init__(
        self,
        driver: Driver,
        pools: AddressPools,
        live: Mapping[bytes, Exchange],
        feed: Callable[[bytes, Event], Awaitable[None]],
        count_silence: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._pools = pools
        self._live = live
        self._feed = feed
        self._count_silence = count_silence
        self._stranded: set[bytes] = set()
        self._differs = asyncio.Event()
        self._lost = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._daemon_seen = False
        self._daemon_watched = False
        self._reason = RESTART
        self.looked = asyncio.Event()
        """Set once it was compared, or the daemon did not answer."""
        self.alone = asyncio.Lock()
        """Held while it compares."""

    def needed(self) -> None:
        """Have it compared: something failed, or may have left something behind."""
        self._differs.set()

    def client_lost(self) -> None:
        """Have it looked up soon whether the daemon still has what she comes by: nothing tells."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._lost.set)

    def daemon_answers(self) -> None:
        """Have it compared: what happened in the IKE daemon before now was not heard."""
        self._reason = DAEMON_RESTARTED if self._daemon_seen else RESTART
        self._daemon_seen = self._daemon_watched = True
        self._differs.set()

    def daemon_silent(self) -> None:
        """Remember that it was looked for, and that the next to answer may be another."""
        self._daemon_seen = True
        self._daemon_watched = False
        self.looked.set()

    def daemon_gone(self) -> None:
        """Remember what was prepared: the pre-shared keys went with the daemon."""
        self._daemon_watched = False
        self._stranded |= self._in_state(State.PREPARED)

    async def keep(self) -> None:
        """Compare whenever they may differ, for ever."""
        while True:
            await self._differs.wait()
            async with self.alone:
                await self._once()

    async def keep_lost(self) -> None:
        """End what can no more come back, whenever Clients were lost, for ever.

        Nothing else is compared then: of others who are just being lost it is not heard yet.
        """
        while True:
            await self._lost.wait()
            self._lost.clear()
            self._soon = None
            async with self.alone:
                try:
                    await self._end_unloaded()
                except IPsecError:
                    self.client_lost()  # to be looked up when the daemon answers

    async def _end_unloaded(self) -> None:
        unloaded = self._silent() - await self._resumable()
        if unloaded:
            statuses = await ask(self._driver.status)
            unloaded -= {request_id_of(each.name) for each in statuses if each.established}
        # One that was started anew has nothing, and is compared with for that reason.
        if self._daemon_watched:
            await self._feed_all(unloaded & self._silent(), Over(_UNLOADED))

    async def _once(self) -> None:
        self._differs.clear()
        reason, self._reason = self._reason, _OUT_OF_SIGHT
        try:
            await self._compare(frozenset(self._stranded), reason)
        except IPsecError as error:
            log.warning("ike-daemon-silent", reason=error.sentence)
            if isinstance(error, AwayError):
                self._count_silence()
            self._keep_in_mind(reason)
            if self._daemon_watched:
                # One that went away is compared with when it is back: nothing tells of this one.
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._differs.set)
        except Exception:
            self._keep_in_mind(reason)
            self._differs.set()
            raise
        finally:
            self.looked.set()

    def _keep_in_mind(self, reason: str) -> None:
        """Have the next comparison give that reason, unless there is a newer one."""
        if self._reason == _OUT_OF_SIGHT:
            self._reason = reason

    async def _compare(self, stranded: frozenset[bytes], reason: str) -> None:
        standing, silent = self._in_state(State.ESTABLISHED, *_COMING_UP), self._silent()
        unfinished = self._in_state(State.ENDING, State.CLOSING)
        statuses = await ask(self._driver.status)
        up = {request_id_of(each.name) for each in statuses if each.established}
        waiting = await self._waiting_in_vain()
        kept = await self._resumable()
        # One may have been lost, or be back, since.
        gone = (standing - (kept & (silent | self._silent()))) | stranded | waiting
        is_same = reason == _OUT_OF_SIGHT and self._daemon_watched
        unloaded = (waiting | silent) - kept - stranded if is_same else set()
        await self._feed_all((gone - up - unloaded) | unfinished, Over(reason))
        await self._feed_all(unloaded - up, Over(_UNLOADED))
        await self._feed_all((up & self._live.keys()) - standing, CameUp())
        await self._let_through(statuses)
        swept = await self._sweep()
        # One of the same Request ID may have been prepared while what it left was swept.
        await self._feed_all(swept & self._live.keys(), Over(reason))
        self._stranded -= stranded
        log.info("ike-daemon-compared", live=len(self._live), swept=len(swept))

    async def _sweep(self) -> set[bytes | None]:
        """Take out of the daemon what does not live; then its addresses are free."""
        withheld = self._pools.stranded
        swept = await ask(self._driver.sweep, self._names_of_live)
        self._pools.free(withheld)
        return {request_id_of(name) for name in swept}

    def _names_of_live(self) -> frozenset[str]:
        """Return the tunnels to be kept, from whichever thread; a copy cannot change meanwhile."""
        return frozenset(map(tunnel_name, dict(self._live)))

    async def _let_through(self, statuses: list[TunnelStatus]) -> None:
        """Open the gate for the sessions that stand; it was shut when this service began."""
        for status in statuses:
            exchange = self._live.get(request_id_of(status.name) or b"")
            if exchange is not None and exchange.state is State.ESTABLISHED:
                await exchange.let_through(status.remote_address)

    async def _resumable(self) -> set[bytes | None]:
        """Return the sessions whose Client may come anew: the daemon has their keys."""
        return {request_id_of(name) for name in await ask(self._driver.resumable)}

    def _silent(self) -> set[bytes]:
        """Return the sessions whose silent Client may come back.

        After a restart of this agent there are none: nobody saw whether she ended it.
        """
        return {each for each, found in self._live.items() if found.is_away}

    async def _waiting_in_vain(self) -> set[bytes]:
        """Return what is prepared by its record, and of which the IKE daemon knows nothing."""
        prepared = self._in_state(State.PREPARED)
        installed = await ask(self._driver.installed)
        return prepared - {request_id_of(name) for name in installed}

    def _in_state(self, *states: State) -> set[bytes]:
        return {each for each, exchange in self._live.items() if exchange.state in states}

    async def _feed_all(self, request_ids: Iterable[bytes | None], event: Event) -> None:
        """Feed it to all side by side: each may have to wait for its peer, or the database."""
        fed = (self._feed(each, event) for each in request_ids if each is not None)
        for done in await asyncio.gather(*fed, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done


def request_id_of(name: str) -> bytes | None:
    """Return the Request ID of a tunnel of that name; None if it is no tunnel of ours."""
    try:
        return bytes.fromhex(name.removeprefix(NAME_PREFIX))
    except ValueError:
        return None

"""The sweep of a Host: what nobody asks for any more is settled, expired, forgotten, destroyed.

Once a minute, and sooner where there is reason: the HSM is back, or did not show a key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.database import reason_of
from carnet.database.readers import ask
from carnet.errors import TokenError
from host_agent.exchange import Parts, destroy_key
from host_agent.hsm_service import HsmAwayError
from host_agent.keydb import ANSWER_KEPT, KeyStoreName
from host_agent.keystore.stores import store_of
from host_agent.keystore.wrapped import Forgetting, burn_what_came_back, sweep_wrapped

log = structlog.get_logger()

SWEEP_SECONDS = 60
UNSEEN_SECONDS = 5
"""At least so long after a key was not seen it is looked for again, as under an import."""
_FINISH = "Unless one runs, import its batch again, or run `carnet-host sweep`."
_LEAPT = (
    "The clock has leapt ahead: for a day no pair expires and no request is too late by it; set "
    "it, or restart the Host."
)


class Sweep:
    """Does it again and again; `settle` refuses the requests that are too old to be passed on."""

    def __init__(self, parts: Parts, settle: Callable[[], Awaitable[None]]) -> None:
        self._database, self._hsm, self._clock = parts.database, parts.hsm, parts.clock
        self._parts, self._settle = parts, settle
        self._now = asyncio.Event()
        self._look_again: asyncio.TimerHandle | None = None
        self._look_over_hsm = True
        self._forgetting = Forgetting()

    async def keep(self) -> None:
        """Sweep for ever."""
        while True:
            await self.once()
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._now.wait()
            self._now.clear()

    async def once(self) -> None:
        """Do each part of it, whatever became of the others: no key is to outlive its use."""
        for part in (self._settle, self.end_by_clock, self.destroy_keys):
            try:
                await part()
            except SQLAlchemyError as error:
                log.warning("sweep-failed", reason=reason_of(error))

    async def end_by_clock(self) -> None:
        """Expire pairs and forget old answers, unless the clock has just leapt.

        Nothing undoes either, and an answer that its Client did not get costs her a pair.
        """
        now = await ask(self._database.clock)
        leap = self._clock.leap(now)
        if leap:
            log.warning("expiry-waits", ahead=leap, remedy=_LEAPT)
            return
        await asyncio.to_thread(self._database.expire, now)
        crash.reach("host.expired")
        steady = self._clock.steady_for >= ANSWER_KEPT
        await asyncio.to_thread(self._database.drop_old_responses, now, ahead=steady)

    def hsm_returned(self) -> None:
        """Sweep now, and look over what the HSM holds."""
        self._look_over_hsm = True
        self._now.set()

    def key_unseen(self, seconds: float) -> None:
        """Sweep in so many seconds, when a key that is to be destroyed can be looked for again."""
        if self._look_again is None:
            loop, pause = asyncio.get_running_loop(), max(seconds, UNSEEN_SECONDS)
            self._look_again = loop.call_later(pause, self._sweep_again)

    def _sweep_again(self) -> None:
        self._look_again = None
        self._now.set()

    async def destroy_keys(self) -> None:
        """Destroy what this HSM still owes, and after a login what should not be there.

        What is kept wrapped needs no HSM to be burned.
        """
        database, hsm = self._database, self._hsm
        for key_id in await ask(database.keys_to_destroy, hsm.serial):
            pair = await ask(database.find_pair, key_id)
            try:
                if pair is not None:
                    await destroy_key(self._parts, pair)
            except HsmAwayError:
                continue
            except TokenError as error:
                log.warning("key-not-destroyed", key_id=key_id.hex(), reason=str(error))
        if self._look_over_hsm:
            with suppress(TokenError):
                await burn_what_came_back(database, hsm)
                await self._destroy_unwanted()
                self._look_over_hsm = False
        await sweep_wrapped(database, hsm, self._forgetting)

    async def _destroy_unwanted(self) -> None:
        """Destroy what the HSM holds and nothing wants there; raises TokenError."""
        database, hsm, on_token = self._database, self._hsm, store_of(KeyStoreName.TOKEN)
        held = await hsm.held()
        for key_id in await ask(database.unwanted, held):
            await on_token.burn(database, hsm, key_id)
        serial = hsm.serial or ""
        left = await ask(database.unfinished_keys, serial, held)
        if left:
            log.warning("import-not-finished", serial=serial, keys=len(left), remedy=_FINISH)

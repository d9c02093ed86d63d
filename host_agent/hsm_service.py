"""The HSM token in service: one operation after the other, and looked for when it is away.

On one thread, because a token serves one operation of a session at a time anyway, and
so that a slow token never holds up the event loop. When the HSM goes away, whatever
is asked of it fails at once, and it is looked for until it is back.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from carnet.errors import CarnetError, PinRefusedError, TokenAwayError, TokenError
from carnet.exchange.machine import Action, Event
from carnet.worker import Worker
from host_agent import hsm_states as states
from host_agent.hsm_login import HsmLogin, HsmLostError

log = structlog.get_logger()
T = TypeVar("T")

OPERATION_SECONDS = 10
"""After which an HSM that does not answer is taken for lost."""
START_SECONDS = 30
"""After which the first login, if it still goes on, no longer keeps the Host from serving."""
IMPORT_SECONDS = 120
"""The same, for one operation of an import: some list all keys, which takes long where many are."""
STORING_SECONDS = 60
"""The same, for what is stored besides: a disk that others keep busy takes long to sync it."""
WATCH_SECONDS = 5
"""Between looks at an HSM of which nobody asks anything."""
RETRY_SECONDS = 5
"""Between attempts to log in again, at most."""


_SILENT_AT_START = (
    f"The HSM has not answered for {START_SECONDS} seconds; where it is a smart card, and its "
    f"service (pcscd) stands still, restart that (`systemctl restart pcscd`)."
)


class HsmAwayError(TokenError):
    """The HSM does not serve just now; nothing was asked of it."""


class HsmSilentError(HsmAwayError):
    """The HSM does not answer; what was asked of it may have been done."""


_KINDS: dict[type[TokenError], str] = {
    HsmAwayError: "away",
    HsmSilentError: "silent",
    HsmLostError: "lost",
}
_FAILED, _PIN_REFUSED = "failed", "pin-refused"
ERROR_KINDS = (*_KINDS.values(), _FAILED, _PIN_REFUSED)
"""What `on_error` may be called with."""


class HsmService:
    """The HSM token, logged in to or looked for.

    `on_return` is called, on the event loop, whenever it comes into service, `on_error`
    with the kind of whatever it fails with.
    """

    def __init__(self, login: HsmLogin, worker: Worker) -> None:
        self._login = login
        self._worker = worker
        self._machine = states.machine()
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._logging_in: asyncio.Task[str] | None = None
        """The login that goes on; there is never a second one, which could try the PIN again."""
        self._told: str | None = None
        self.on_return: Callable[[], None] = lambda: None
        self.on_error: Callable[[str], None] = lambda _: None
        self.waiting = 0
        """How many operations wait for the HSM, or are with it."""

    @property
    def state(self) -> states.State:
        """Whether it serves."""
        return self._machine.state

    @property
    def serial(self) -> str | None:
        """The token's serial number; None before the first login."""
        return self._login.serial

    def require(self) -> None:
        """Raise HsmAwayError unless it serves; before what would be in vain without it."""
        if self.state is not states.State.IN_SERVICE:
            raise HsmAwayError(f"The HSM is {self.state}; the log says why.")

    async def start(self) -> None:
        """Log in for the first time; an HSM that is not there, or is silent, is waited for.

        Raises CarnetError where waiting would not help: the PIN, the module, the choice,
        a Key Database older than the token knows.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                serial = await self._log_in()
        except TimeoutError:
            self._handle(states.StillAway(_SILENT_AT_START))
        except TokenAwayError as error:
            self._handle(states.StillAway(error.sentence))
        else:
            self._handle(states.LoggedIn(serial))

    async def _log_in(self) -> str:
        """Log in, or wait for the login that goes on; return the token's serial number."""
        if self._logging_in is None:
            self._logging_in = asyncio.create_task(self._worker.call(self._login.log_in))
        task = self._logging_in
        try:
            return await asyncio.shield(task)
        finally:
            if task.done():
                self._logging_in = None

    async def supervise(self) -> None:
        """Log in again whenever the HSM was lost, until the PIN is refused."""
        while self.state is not states.State.SHUT_OUT:
            if self.state is states.State.AWAY:
                await self._come_back()
            else:
                await self._watch()

    async def supervise_for_ever(self) -> None:
        """Do so for ever; a PIN that was refused stays refused until a start anew."""
        await self.supervise()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Log out, unless the HSM does not even answer to that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OPERATION_SECONDS):
                await self._worker.call(self._login.log_out)

    async def _come_back(self) -> None:
        attempts = AsyncRetrying(
            wait=wait_exponential_jitter(multiplier=0.2, max=RETRY_SECONDS),
            retry=retry_if_exception_type(Exception),
        )
        await attempts(self._log_in_again)

    async def _log_in_again(self) -> None:
        try:
            serial = await self._log_in()
        except PinRefusedError as error:
            self.on_error(_PIN_REFUSED)
            self._handle(states.PinRefused(error.sentence))
        except CarnetError as error:
            self._handle(states.StillAway(error.sentence))
            raise
        except Exception:
            log.exception("hsm-login-failed")
            raise
        else:
            self._handle(states.LoggedIn(serial))

    async def _watch(self) -> None:
        """Return when the HSM is lost, or after a while in which it was not."""
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                await self._lost.wait()
        except TimeoutError:
            with suppress(TokenError):
                await self.check()

    def leave(self, reason: str) -> None:
        """Go out of service, until a login succeeds again."""
        if self.state is states.State.IN_SERVICE:
            self._handle(states.Lost(reason))

    async def check(self) -> None:
        """Ask the HSM whether it is there; raises TokenError."""
        self.require()
        await self._in_turn(self._login.check)

    async def _in_turn(self, work: Callable[[], T], seconds: float | None = None) -> T:
        """Do one operation at a time, so that each is timed by itself."""
        self.waiting += 1
        try:
            async with self._turn:
                self.require()
                return await self._timed(work, seconds or OPERATION_SECONDS)
        except TokenError as error:
            self.on_error(_KINDS.get(type(error), _FAILED))
            raise
        finally:
            self.waiting -= 1

    async def _timed(self, work: Callable[[], T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await self._worker.call(work)
        except HsmLostError as error:
            self._handle(states.Lost(error.sentence))
            raise
        except PinRefusedError as error:
            self._handle(states.PinRefused(error.sentence))
            raise
        except TimeoutError as error:
            silence = f"The HSM has not answered for {seconds:g} seconds."
            self._handle(states.Lost(silence))
            raise HsmSilentError(silence) from error

    def _handle(self, event: Event) -> None:
        for action in self._machine.handle(event):
            _PERFORMERS[type(action)](self, action)

    def tell_in_service(self, action: states.TellInService) -> None:
        """Say that it serves; have done what waited for it."""
        self._lost.clear()
        self._told = None
        log.info("hsm-in-service", serial=action.serial)
        self.on_return()

    def tell_away(self, action: states.TellAway) -> None:
        """Say why it is away; attempts that fail for the same reason say nothing."""
        if action.reason != self._told:
            self._told = action.reason
            log.warning("hsm-away", reason=action.reason)

    def tell_shut_out(self, action: states.TellShutOut) -> None:
        """Say that nothing more is tried."""
        log.critical(
            "hsm-shut-out",
            reason=action.reason,
            remedy="The PIN is not tried again; see `carnet-host doctor`, and start carnet-host"
            " anew with the right one.",
        )

    def log_in_again(self, action: states.LogInAgain) -> None:
        """Wake the supervision."""
        log.warning("hsm-lost", reason=action.reason)
        self._lost.set()


_PERFORMERS: dict[type[Action], Callable[[HsmService, Any], None]] = {
    states.TellInService: HsmService.tell_in_service,
    states.TellAway: HsmService.tell_away,
    states.TellShutOut: HsmService.tell_shut_out,
    states.LogInAgain: HsmService.log_in_again,
}

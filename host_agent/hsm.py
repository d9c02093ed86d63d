"""The Host's HSM token: all private-key operations, on one thread of their own.

One thread, because a token serves one operation of a session at a time anyway, and
so that a slow token never holds up the event loop. When the HSM goes away, whatever
is asked of it fails at once, and it is looked for until it is back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from carnet.background import Background
from carnet.errors import (
    CarnetError,
    KeyNotSeenError,
    PinRefusedError,
    TokenAwayError,
    TokenError,
)
from carnet.exchange.machine import Action, Event
from carnet.token.accounts import sign_accounts
from carnet.token.host_keys import HostKeys
from carnet.token.session import TokenSession
from carnet.wire import split
from carnet.wire.documents import AccountsHead, sign_document
from carnet.wire.envelope import (
    Envelope,
    SignedRequest,
    open_request,
    seal_response,
)
from carnet.wire.messages import Response
from carnet.worker import Worker
from host_agent import hsm_states as states
from host_agent.config import TokenSection
from host_agent.hsm_login import HsmLogin, HsmLostError
from host_agent.keystore.halves import Half, HeldKeys, OnToken

log = structlog.get_logger()
T = TypeVar("T")

OPERATION_SECONDS = 10
"""After which an HSM that does not answer is taken for lost."""
IMPORT_SECONDS = 120
"""The same, for one operation of an import: some list all keys, which takes long where many are."""
WATCH_SECONDS = 5
"""Between looks at an HSM of which nobody asks anything."""
RETRY_SECONDS = 5
"""Between attempts to log in again, at most."""


class HsmAwayError(TokenError):
    """The HSM does not serve just now; nothing was asked of it."""


class HsmSilentError(HsmAwayError):
    """The HSM does not answer; what was asked of it may have been done."""


_KINDS: dict[type[TokenError], str] = {
    HsmAwayError: "away",
    HsmSilentError: "silent",
    HsmLostError: "lost",
}


@dataclass(frozen=True)
class HeldBatchKeys:
    """The key-encryption keys that the HSM held when it was logged in to, or was asked since."""

    serial: str
    """Of the token."""
    kek_ids: frozenset[bytes]


class Hsm:
    """The HSM token, logged in to or looked for; get one from open_hsm().

    `on_return` is called, on the event loop, whenever it comes into service, `on_error`
    with the kind of whatever it fails with.
    """

    def __init__(self, login: HsmLogin, worker: Worker) -> None:
        self._login = login
        self._worker = worker
        self._machine = states.machine()
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
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

    async def open_request(
        self, envelope: Envelope, public_key: bytes, half: Half | None = None
    ) -> SignedRequest:
        """Step 2: open a request and verify its signature.

        Without `half` the private key is an object of its own on the token. Raises
        WireError if it is no request, TokenError if the token fails or is away.
        """

        def work(held: HeldKeys) -> SignedRequest:
            with (half or OnToken(envelope.key_id)).opened(held) as key:
                return open_request(envelope, public_key, key)

        return await self._use_key(lambda: self._login.use(work))

    async def seal_response(
        self, response: Response, envelope: Envelope, public_key: bytes, half: Half | None = None
    ) -> bytes:
        """Step 7: sign a response and seal it to the pair; raises TokenError."""

        def work(held: HeldKeys) -> bytes:
            with (half or OnToken(envelope.key_id)).opened(held) as key:
                return seal_response(response, envelope, public_key, key)

        return await self._use_key(lambda: self._login.use(work))

    async def open_split_request(
        self, envelope: Envelope, public_key: bytes, host_key_id: bytes
    ) -> SignedRequest:
        """Step 2 in custody `split`: open with the Host's key, verify under the pair's.

        Raises as open_request() does; UnknownHostKeyError where the HSM has no such key.
        """
        return await self._use_host_keys(
            lambda keys: split.open_request(
                envelope,
                public_key,
                keys.sealing_key(host_key_id),
                partial(keys.agree, host_key_id),
            )
        )

    async def seal_split_response(
        self, response: Response, envelope: Envelope, ephemeral_key: bytes, host_key_id: bytes
    ) -> bytes:
        """Step 7 in custody `split`: sign with the Host's key, seal to the Client's ephemeral one.

        Raises TokenError, and WireError if the Client's key is none.
        """
        return await self._use_host_keys(
            lambda keys: split.seal_response(
                response, envelope, ephemeral_key, partial(keys.sign, host_key_id)
            )
        )

    async def destroy(self, key_id: bytes) -> None:
        """Step 10: destroy a pair's private key; it is no error if it is gone already.

        Raises TokenError if the token fails, or is away with the key.
        """

        def work(held: HeldKeys) -> bool:
            return held.pairs.destroy(key_id)

        if not await self._use(work):
            await self._anew(lambda: self._login.use(work))

    async def destroy_batch_key(self, kek_id: bytes) -> tuple[str, bool]:
        """Destroy the key of a batch; return the token's serial number, and whether it was there.

        It is no error if it is gone already. Raises TokenError as destroy() does.
        """

        def work(held: HeldKeys) -> tuple[str, bool]:
            return held.serial, held.batches.destroy(kek_id)

        found = await self._use(work)
        return found if found[1] else await self._anew(lambda: self._login.use(work))

    async def batch_keys(self) -> HeldBatchKeys:
        """Return the keys of batches that the token holds; raises TokenError if it is away."""
        return await self._use(lambda held: HeldBatchKeys(held.serial, held.batches.held()))

    async def held(self) -> frozenset[bytes]:
        """Return the pairs that the token held when it was logged in to, whole or in part."""
        return await self._use(lambda keys: keys.pairs.listed())

    async def sign_head(self, head: AccountsHead) -> bytes:
        """Sign the head of the accounts; raises TokenError."""
        return await self._in_turn(lambda: self._login.use_session(lambda s: _sign_head(s, head)))

    async def do(self, work: Callable[[TokenSession], T]) -> T:
        """Do something short with the session; raises TokenError, and what the work raises."""
        return await self._in_turn(lambda: self._login.use_session(work))

    def leave(self, reason: str) -> None:
        """Go out of service, until a login succeeds again."""
        if self.state is states.State.IN_SERVICE:
            self._handle(states.Lost(reason))

    async def use_session(self, work: Callable[[TokenSession], T]) -> T:
        """Do something for an import; requests come in between; raises TokenError."""
        return await self._in_turn(lambda: self._login.use_session(work), IMPORT_SECONDS)

    async def check(self) -> None:
        """Ask the HSM whether it is there; raises TokenError."""
        self.require()
        await self._in_turn(self._login.check)

    async def renew(self) -> None:
        """Log in anew, to see what the token really keeps; raises TokenError."""
        await self._in_turn(self._login.renew, IMPORT_SECONDS)

    async def start(self) -> None:
        """Log in for the first time; an HSM that is not there is waited for.

        Raises CarnetError where waiting would not help: the PIN, the module, the choice,
        a Key Database older than the token knows.
        """
        try:
            serial = await self._worker.call(self._login.log_in)
        except TokenAwayError as error:
            self._handle(states.StillAway(error.sentence))
        else:
            self._handle(states.LoggedIn(serial))

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
            serial = await self._worker.call(self._login.log_in)
        except PinRefusedError as error:
            self.on_error("pin-refused")
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

    async def _use(self, work: Callable[[HeldKeys], T]) -> T:
        return await self._in_turn(lambda: self._login.use(work))

    async def _use_host_keys(self, work: Callable[[HostKeys], T]) -> T:
        return await self._use_key(lambda: self._login.use_host_keys(work))

    async def _use_key(self, use: Callable[[], T]) -> T:
        """Use a key that should be there; where it is not seen, look again."""
        try:
            return await self._in_turn(use)
        except KeyNotSeenError:
            return await self._anew(use)

    async def _anew(self, use: Callable[[], T]) -> T:
        """Do it in a fresh login, which shows what other processes stored."""
        await self._in_turn(self._login.renew_unless_fresh, IMPORT_SECONDS)
        return await self._in_turn(use)

    async def _in_turn(self, work: Callable[[], T], seconds: int = OPERATION_SECONDS) -> T:
        """Do one operation at a time, so that each is timed by itself."""
        self.waiting += 1
        try:
            async with self._turn:
                self.require()
                return await self._timed(work, seconds)
        except TokenError as error:
            self.on_error(_KINDS.get(type(error), "failed"))
            raise
        finally:
            self.waiting -= 1

    async def _timed(self, work: Callable[[], T], seconds: int) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await self._worker.call(work)
        except HsmLostError as error:
            self._handle(states.Lost(error.sentence))
            raise
        except TimeoutError as error:
            silence = f"The HSM has not answered for {seconds} seconds."
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
            remedy="The PIN is not tried again; start carnet-host anew with the right one.",
        )

    def log_in_again(self, action: states.LogInAgain) -> None:
        """Wake the supervision."""
        log.warning("hsm-lost", reason=action.reason)
        self._lost.set()


_PERFORMERS: dict[type[Action], Callable[[Hsm, Any], None]] = {
    states.TellInService: Hsm.tell_in_service,
    states.TellAway: Hsm.tell_away,
    states.TellShutOut: Hsm.tell_shut_out,
    states.LogInAgain: Hsm.log_in_again,
}


def _sign_head(session: TokenSession, head: AccountsHead) -> bytes:
    return sign_document(head, lambda digest: sign_accounts(session, digest))


@asynccontextmanager
async def open_hsm(
    section: TokenSection,
    pin: str,
    check: Callable[[TokenSession], None] = lambda _: None,
    background: Background | None = None,
) -> AsyncIterator[Hsm]:
    """Log in to the HSM token, keep logged in, and log out at the end.

    `check` is called with each new session, and keeps the HSM out of service by raising
    CarnetError. It is supervised among the `background` work of a service. Raises CarnetError
    as Hsm.start() does.
    """
    worker = Worker("hsm")
    hsm = Hsm(HsmLogin(section, pin, check), worker)
    try:
        await hsm.start()
        supervision = background or Background(lambda _: None)
        supervision.start("hsm", hsm.supervise_for_ever)
        try:
            yield hsm
        finally:
            await supervision.stop()
    finally:
        await hsm.stop()
        worker.close()

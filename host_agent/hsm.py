"""What the Host asks of its HSM token: all private-key operations of the steps."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from carnet.background import Background
from carnet.errors import KeyNotSeenError
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
from host_agent.config import TokenSection
from host_agent.hsm_login import HsmLogin
from host_agent.hsm_service import (
    IMPORT_SECONDS,
    OPERATION_SECONDS,
    STORING_SECONDS,
    HsmService,
)
from host_agent.keydb.in_use import KeysInUse
from host_agent.keystore.halves import Half, HeldKeys, OnToken

T = TypeVar("T")


@dataclass(frozen=True)
class HeldBatchKeys:
    """The key-encryption keys that the HSM held when it was logged in to, or was asked since."""

    serial: str
    """Of the token."""
    kek_ids: frozenset[bytes]


class Hsm(HsmService):
    """The HSM token and the keys on it; get one from open_hsm()."""

    def __init__(self, login: HsmLogin, worker: Worker) -> None:
        super().__init__(login, worker)
        self._imports = 0
        self.on_unseen: Callable[[float], None] = lambda _: None
        """Called where a key that is to be destroyed is not seen and may be there, with the
        seconds after which that can be found out."""

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Have no key that is not seen renew the login meanwhile.

        An import has agreed on keys in the session that there is; see() first.
        """
        self._imports += 1
        try:
            yield
        finally:
            self._imports -= 1

    async def see(self, keys: KeysInUse) -> None:
        """Log in anew unless this login has seen all these keys; raises TokenError.

        Before an import, under which what is not seen stays so.
        """
        if not await self._in_turn(lambda: self._sees(keys)):
            await self.renew()

    def _sees(self, keys: KeysInUse) -> bool:
        def on_token(held: HeldKeys) -> bool:
            return keys.pairs <= held.pairs.whole() and keys.batch_keys <= held.batches.held()

        def of_host(held: HostKeys) -> bool:
            return keys.host_keys <= {couple.key_id for couple in held.couples()}

        return self._login.use(on_token) and (
            not keys.host_keys or self._login.use_host_keys(of_host)
        )

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

        Raises TokenError if the token fails, or is away with the key; KeyNotSeenError where
        the key is not seen and may be there all the same.
        """
        await self._destroyed(lambda held: held.pairs.destroy(key_id))

    async def destroy_batch_key(self, kek_id: bytes) -> tuple[str, bool]:
        """Destroy the key of a batch; return the token's serial number, and whether it was there.

        It is no error if it is gone already. Raises TokenError as destroy() does.
        """
        destroyed = await self._destroyed(lambda held: held.batches.destroy(kek_id))
        return self.serial or "", destroyed

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

    async def store(self, work: Callable[[TokenSession], T]) -> T:
        """Do something that stores objects, which waits for a disk; raises as do() does."""
        return await self._in_turn(lambda: self._login.store(work), STORING_SECONDS)

    async def use_session(self, work: Callable[[TokenSession], T]) -> T:
        """Do something for an import; requests come in between; raises TokenError."""
        return await self._in_turn(lambda: self._login.store(work), IMPORT_SECONDS)

    async def renew(self) -> None:
        """Log in anew, to see what the token really keeps; raises TokenError."""
        await self._in_turn(self._login.renew, IMPORT_SECONDS)

    async def _destroyed(self, destroy: Callable[[HeldKeys], bool]) -> bool:
        """Destroy a key; return False if it was gone. Raises KeyNotSeenError where none can say."""
        if await self._use(destroy):
            return True
        all_seen = await self._look_anew()
        if await self._use(destroy):
            return True
        if not all_seen:
            self.on_unseen(self._login.fresh_for)
            raise KeyNotSeenError("The HSM may hold a key that it does not show yet; wait for it.")
        return False

    async def _use(self, work: Callable[[HeldKeys], T]) -> T:
        return await self._in_turn(lambda: self._login.use(work))

    async def _use_host_keys(self, work: Callable[[HostKeys], T]) -> T:
        return await self._use_key(lambda: self._login.use_host_keys(work))

    async def _use_key(self, use: Callable[[], T]) -> T:
        """Use a key that should be there; where it is not seen, look again."""
        try:
            return await self._in_turn(use)
        except KeyNotSeenError:
            await self._look_anew()
            return await self._in_turn(use)

    async def _look_anew(self) -> bool:
        """Log in anew if that may show more; tell whether what is not seen then is not there."""

        def look() -> bool:
            if not self._imports:
                self._login.renew_unless_fresh()
            return not self._login.has_stored

        # A login that takes much longer than the last one hangs.
        return await self._in_turn(look, max(OPERATION_SECONDS, 3 * self._login.seconds))


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

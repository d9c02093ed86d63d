"""The Host's HSM token: all private-key operations, on one thread of their own.

One thread, because a token serves one operation of a session at a time anyway, and
so that a slow token never holds up the event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import TypeVar

from carnet.token.accounts import accounts_key, sign_accounts, write_mark
from carnet.token.module import Token, find_module, load_module
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession, open_session
from carnet.wire.documents import AccountsHead, sign_document
from carnet.wire.envelope import (
    Envelope,
    SignedRequest,
    open_request,
    seal_response,
)
from carnet.wire.messages import Response
from host_agent.config import TokenSection
from host_agent.keydb import KeyDatabase
from host_agent.rollback import check_not_older
from softhsm.configuration import use_default

T = TypeVar("T")


def find_hsm(section: TokenSection) -> Token:
    """Return the HSM token that the configuration means; raises TokenError."""
    if section.module is None:
        use_default()
    return load_module(find_module(section.module)).choose(section.token)


class Hsm:
    """The logged-in HSM token; get one from open_hsm()."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._closing = ExitStack()
        self._session: TokenSession
        self._keys: OneTimeKeys

    async def open_request(self, envelope: Envelope, public_key: bytes) -> SignedRequest:
        """Step 2: open a request and verify its signature.

        Raises WireError if it is none, TokenError if the token fails.
        """
        return await self._on_thread(
            lambda: open_request(envelope, public_key, self._keys.private_key(envelope.key_id))
        )

    async def seal_response(
        self, response: Response, envelope: Envelope, public_key: bytes
    ) -> bytes:
        """Step 7: sign a response and seal it to the pair; raises TokenError."""
        return await self._on_thread(
            lambda: seal_response(
                response, envelope, public_key, self._keys.private_key(envelope.key_id)
            )
        )

    async def destroy(self, key_id: bytes) -> None:
        """Step 10: destroy a pair's private key; it is no error if it is gone already.

        Raises TokenError if the token fails.
        """
        await self._on_thread(lambda: self._keys.destroy(key_id))

    async def sign_head(self, head: AccountsHead) -> bytes:
        """Sign the head of the accounts; raises TokenError."""
        return await self._on_thread(lambda: self._sign_head(head))

    async def keep_mark(self, signed: bytes) -> None:
        """Keep a signed head on the token; raises TokenError."""
        await self._on_thread(lambda: write_mark(self._session, signed))

    async def check_not_older(self, database: KeyDatabase) -> None:
        """Raise UsageError if the Key Database is older than the token knows."""
        await self._on_thread(lambda: check_not_older(database, self._session))

    def _sign_head(self, head: AccountsHead) -> bytes:
        accounts_key(self._session)
        return sign_document(head, lambda digest: sign_accounts(self._session, digest))

    async def log_in(self, section: TokenSection, pin: str) -> None:
        """Open the session; raises TokenError."""
        await self._on_thread(lambda: self._log_in(section, pin))

    async def log_out(self) -> None:
        """Close the session."""
        await self._on_thread(self._closing.close)

    def _log_in(self, section: TokenSection, pin: str) -> None:
        token = find_hsm(section)
        self._session = self._closing.enter_context(open_session(token, pin, writable=True))
        self._keys = OneTimeKeys(self._session)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


@asynccontextmanager
async def open_hsm(section: TokenSection, pin: str) -> AsyncIterator[Hsm]:
    """Log in to the HSM token, and out of it at the end; raises TokenError."""
    with ThreadPoolExecutor(1, "hsm") as executor:
        hsm = Hsm(executor)
        await hsm.log_in(section, pin)
        try:
            yield hsm
        finally:
            await hsm.log_out()

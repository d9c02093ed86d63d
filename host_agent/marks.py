"""The newest record on the HSM of a running service: compared, and moved forward only."""

import asyncio
import time
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.errors import TokenError, UsageError
from carnet.wire.documents import AccountsHead, read_unverified
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase
from host_agent.rollback import ForgottenError, Witness, keep_mark, newest_seen

log = structlog.get_logger()


class Marks:
    """What the HSM remembers of the Key Database that is served."""

    def __init__(self, database: KeyDatabase, hsm: Hsm, witness: Witness, agent: str) -> None:
        self._database, self._hsm, self._witness = database, hsm, witness
        self._agent = agent

    async def check(self) -> None:
        """Raise UsageError, and go out of service, if the Key Database is older than is known.

        The HSM is left then, and no login lets it serve that database again. Raises TokenError
        if it fails, SQLAlchemyError if the database does.
        """
        try:
            head: AccountsHead | None = await self._hsm.do(newest_seen)
            await self._compare(head)
        except UsageError as error:
            log.critical("database-older", reason=error.sentence)
            self._hsm.leave(error.sentence)
            raise

    async def _compare(self, head: AccountsHead | None) -> None:
        """Compare with what the HSM and this process know.

        Where it does not fit, the HSM remembers for the next start what is known here alone.
        """
        try:
            await asyncio.to_thread(self._witness.compare, head)
        except ForgottenError:
            await self._tell(head)
            raise
        except SQLAlchemyError:
            # Not in the place of what another process has signed, and no database was seen to hold.
            if head == self._witness.head:
                await self._tell(head)
            raise

    async def _tell(self, head: AccountsHead | None) -> None:
        """Have the HSM remember what this process knows, instead of that head, if that is less."""
        known = self._known(head)
        if known is not None:
            with suppress(TokenError):
                await self._store(await self._hsm.sign_head(known))

    def _known(self, head: AccountsHead | None) -> AccountsHead | None:
        """Return what this process knows to be durable, where that is more than the HSM does."""
        mark = self._database.newest.mark
        if mark is None or (head is not None and head.number >= mark.number):
            return None
        at = int(time.time())
        return AccountsHead(
            version=1, agent=self._agent, number=mark.number, digest=mark.digest, signed_at=at
        )

    @property
    def newest(self) -> int:
        """The number of the record that the HSM remembers, as it was last seen; 0: of none."""
        return self._witness.head.number if self._witness.head else 0

    async def keep(self, signed: bytes) -> None:
        """Keep a signed head, unless a newer one is kept already; raises as check() does."""
        await self._store(signed)
        await asyncio.to_thread(self._witness.compare, self._witness.head)

    async def _store(self, signed: bytes) -> None:
        await self._hsm.store(lambda session: keep_mark(session, signed))
        self._witness.head = read_unverified(signed, AccountsHead)

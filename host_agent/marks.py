"""The newest record on the HSM of a running service: compared, and moved forward only."""

import asyncio
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.errors import TokenError, UsageError
from carnet.wire.documents import AccountsHead, read_unverified
from host_agent.hsm import Hsm
from host_agent.rollback import ForgottenError, Witness, keep_mark, newest_seen

log = structlog.get_logger()


class Marks:
    """What the HSM remembers of the Key Database that is served."""

    def __init__(self, hsm: Hsm, witness: Witness, agent: str) -> None:
        self._hsm, self._witness, self._agent = hsm, witness, agent

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
        except (ForgottenError, SQLAlchemyError) as error:
            if self._witness.knows_more(head, error):
                with suppress(TokenError):
                    await self._hsm.store(lambda session: self._witness.tell(session, self._agent))
            raise

    @property
    def newest(self) -> int:
        """The number of the record that the HSM remembers, as it was last seen; 0: of none."""
        return self._witness.head.number if self._witness.head else 0

    async def keep(self, signed: bytes) -> None:
        """Keep a signed head, unless a newer one is kept already; raises as check() does."""
        await self._hsm.store(lambda session: keep_mark(session, signed))
        self._witness.head = read_unverified(signed, AccountsHead)
        await asyncio.to_thread(self._witness.compare, self._witness.head)

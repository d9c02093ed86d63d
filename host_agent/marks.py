"""The newest signed head on the HSM of a running service: compared, and moved forward only."""

import asyncio

import structlog

from carnet.errors import UsageError
from carnet.wire.documents import AccountsHead, read_unverified
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase
from host_agent.rollback import Witness, check_holds, keep_mark, newest_seen

log = structlog.get_logger()


class Marks:
    """What the HSM remembers of the Key Database that is served."""

    def __init__(self, database: KeyDatabase, hsm: Hsm, witness: Witness) -> None:
        self._database, self._hsm, self._witness = database, hsm, witness

    async def check(self) -> None:
        """Raise UsageError, and go out of service, if the Key Database is older than the HSM knows.

        The HSM is left then, and no login lets it serve that database again. Raises TokenError
        if it fails, SQLAlchemyError if the database does.
        """
        try:
            head: AccountsHead | None = await self._hsm.do(newest_seen)
            await asyncio.to_thread(check_holds, self._database, head)
        except UsageError as error:
            log.critical("database-older", reason=error.sentence)
            self._hsm.leave(error.sentence)
            raise
        self._witness.learn(head)

    @property
    def newest(self) -> int:
        """The number of the record that the HSM remembers, as it was last seen; 0: of none."""
        return self._witness.head.number if self._witness.head else 0

    async def keep(self, signed: bytes) -> None:
        """Keep a signed head, unless a newer one is kept already; raises TokenError."""
        await self._hsm.store(lambda session: keep_mark(session, signed))
        self._witness.learn(read_unverified(signed, AccountsHead))

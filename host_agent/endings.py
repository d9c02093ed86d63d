"""Why a tunnel ended: what Target signed for the traveller, fetched for her when she asks."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.database import reason_of
from carnet.database.readers import ask
from carnet.exchange.host import NOT_READY
from host_agent.keydb import KeyDatabase
from host_agent.outcome import Answered, Later, Outcome, Rejected
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

STILL_LIVE = "tunnel-lives"
"""Carnet-Reason where Target knows of no end."""


AT_ONCE = 4
"""Questions at the same time at each Target, which keeps each for a while where the tunnel lives.

It allows an address 32 connections: requests and revocations need most of them.
"""


class Endings:
    """The questions that are on their way: one of a Request ID, whoever asks, and few at a time.

    Anybody who knows the Request ID of a tunnel that lives may ask as often as she likes.
    """

    def __init__(self) -> None:
        self._asked: dict[bytes, asyncio.Task[Outcome]] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}

    async def ending_of(
        self, database: KeyDatabase, link: TargetLink, request_id: bytes
    ) -> Outcome:
        """Return Target's signed word on the end of a tunnel; nobody's, of one that is unknown."""
        asked = self._asked.get(request_id)
        if asked is None:
            asked = asyncio.create_task(self._ask(database, link, request_id))
            self._asked[request_id] = asked
            asked.add_done_callback(lambda _: self._asked.pop(request_id))
        # Who goes away ends nobody else's question.
        return await asyncio.shield(asked)

    async def _ask(self, database: KeyDatabase, link: TargetLink, request_id: bytes) -> Outcome:
        try:
            targets = await ask(database.targets_of, request_id)
            for target in filter(link.knows, targets):
                async with self._turns.setdefault(target, asyncio.Semaphore(AT_ONCE)):
                    signed = await link.ending(target, request_id)
                if signed is not None:
                    return Answered(signed, "")
        except SQLAlchemyError as error:
            named = log.bind(request_id=request_id.hex())
            named.warning("database-failed", reason=reason_of(error))
            return Later(NOT_READY)
        except TargetSilentError as error:
            return Later(error.code)
        return Later(STILL_LIVE) if targets else Rejected()

    async def stop(self) -> None:
        """End what is still asked."""
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

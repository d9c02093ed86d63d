"""Accounting for tunnels that ended: each Target is asked, and answers when one ends."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from host_agent.keydb import KeyDatabase
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

SILENCE_SECONDS = 5
"""Between attempts at a Target that does not answer."""


async def follow_all(database: KeyDatabase, link: TargetLink, targets: tuple[str, ...]) -> None:
    """Follow every Target's list of ended tunnels, for ever."""
    await asyncio.gather(*(_follow(database, link, target) for target in targets))


async def _follow(database: KeyDatabase, link: TargetLink, target: str) -> None:
    while True:
        try:
            after = await asyncio.to_thread(database.cursor, target)
            ended = await link.ended(target, after)
            if ended.tunnels:
                await asyncio.to_thread(database.record_ended, target, ended.tunnels)
        except (TargetSilentError, SQLAlchemyError) as error:
            log.info("accounts-wait", target=target, reason=str(error))
            await asyncio.sleep(SILENCE_SECONDS)
            continue
        for tunnel in ended.tunnels:
            request_id = tunnel.request_id.hex()
            log.info("tunnel-ended", request_id=request_id, target=target, reason=tunnel.reason)

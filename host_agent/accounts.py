"""Tunnels after their answer: those that ended are accounted for, those revoked are ended.

Each Target is asked for the first, and answers when one ends.
"""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from host_agent.keydb import KeyDatabase
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

SILENCE_SECONDS = 5
"""Between attempts at a Target that does not answer."""

REVOKED_SECONDS = 0.5
"""Between two looks for tunnels that the operator revoked."""


async def follow_all(database: KeyDatabase, link: TargetLink, targets: tuple[str, ...]) -> None:
    """Follow every Target's list of ended tunnels, for ever."""
    await asyncio.gather(*(_follow(database, link, target) for target in targets))


async def _follow(database: KeyDatabase, link: TargetLink, target: str) -> None:
    while True:
        try:
            after = await asyncio.to_thread(database.cursor, target)
            ended = await link.ended(target, after)
            if ended.tunnels:
                crash.reach("host.end-told")
                await asyncio.to_thread(database.record_ended, target, ended.tunnels)
                crash.reach("host.accounted")
        except (TargetSilentError, SQLAlchemyError) as error:
            log.info("accounts-wait", target=target, reason=str(error))
            await asyncio.sleep(SILENCE_SECONDS)
            continue
        for tunnel in ended.tunnels:
            request_id = tunnel.request_id.hex()
            log.info("tunnel-ended", request_id=request_id, target=target, reason=tunnel.reason)


async def end_all_revoked(
    database: KeyDatabase, link: TargetLink, targets: tuple[str, ...]
) -> None:
    """Have every Target end the tunnels of revoked pairs, for ever."""
    await asyncio.gather(*(_end_revoked(database, link, target) for target in targets))


async def _end_revoked(database: KeyDatabase, link: TargetLink, target: str) -> None:
    while True:
        try:
            for request_id in await asyncio.to_thread(database.tunnels_to_end, target):
                await link.end(target, request_id)
                crash.reach("host.end-asked")
                await asyncio.to_thread(database.record_end_asked, target, request_id)
                crash.reach("host.end-recorded")
                log.info("tunnel-end-asked", request_id=request_id.hex(), target=target)
        except (TargetSilentError, SQLAlchemyError) as error:
            log.info("revoked-wait", target=target, reason=str(error))
        await asyncio.sleep(REVOKED_SECONDS)

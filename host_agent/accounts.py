"""Accounts of tunnels that ended: each Target is asked for them, and answers when one ends."""

import asyncio
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.database.readers import ask
from carnet.wire.control import EndedTunnels
from host_agent.following import Keep, for_each
from host_agent.keydb import KeyDatabase, ListPlace
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

_DIFFER = (
    "It does not show the last ended tunnel that it told. Its list is read from the first again; "
    "if its database was neither made anew nor put back, see what happened to it."
)
SILENCE_SECONDS = 5
"""Between attempts at a Target that does not answer."""


async def follow_all(
    database: KeyDatabase, link: TargetLink, targets: tuple[str, ...], keep: Keep
) -> None:
    """Follow every Target's list of ended tunnels, for ever."""
    await for_each("ended tunnels", targets, partial(_follow, database, link), keep)


async def _follow(database: KeyDatabase, link: TargetLink, target: str) -> None:
    while True:
        try:
            ended = await _next_ended(database, link, target)
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


async def _next_ended(database: KeyDatabase, link: TargetLink, target: str) -> EndedTunnels:
    """Ask for what ended after the last that was told; wait for it.

    First for that last one itself: a Target whose database was made anew, or put back,
    counts from a lower number, and would be asked in vain until it has passed the old one.
    """
    place = await ask(database.place, target)
    if place.request_id is not None:
        overlapping = await link.ended(target, place.number - 1)
        if place.is_in(overlapping.tunnels):
            if overlapping.tunnels[1:]:
                return overlapping
        else:
            log.warning("target-records-differ", target=target, number=place.number, remedy=_DIFFER)
            await asyncio.to_thread(database.read_from_first, target, place)
            place = ListPlace()
    return await link.ended(target, place.number)

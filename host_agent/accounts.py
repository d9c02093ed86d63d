"""Tunnels after their answer: those that ended are accounted for, those revoked are ended.

Each Target is asked for the first, and answers when one ends.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.background import Work
from carnet.database.readers import ask
from carnet.wire.control import EndedTunnels
from host_agent.keydb import KeyDatabase, ListPlace
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

_DIFFER = (
    "It does not show the last ended tunnel that it told. Its list is read from the first again; "
    "if its database was neither made anew nor put back, see what happened to it."
)
SILENCE_SECONDS = 5
"""Between attempts at a Target that does not answer."""

REVOKED_SECONDS = 0.5
"""Between two looks for tunnels that the operator revoked."""


Keep = Callable[[str, Work], Coroutine[None, None, None]]
"""Has work done for ever under a name (carnet.background): no Target's failure stops another's."""


async def follow_all(
    database: KeyDatabase, link: TargetLink, targets: tuple[str, ...], keep: Keep
) -> None:
    """Follow every Target's list of ended tunnels, for ever."""
    follow = partial(_follow, database, link)
    await _for_each("ended tunnels", targets, follow, keep)


async def _for_each(
    name: str,
    targets: tuple[str, ...],
    work: Callable[[str], Coroutine[None, None, None]],
    keep: Keep,
) -> None:
    each = (keep(f"{name} of {target}", partial(work, target)) for target in targets)
    await asyncio.gather(asyncio.Event().wait(), *each)


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


async def end_all_revoked(
    database: KeyDatabase, link: TargetLink, targets: tuple[str, ...], keep: Keep
) -> None:
    """Have every Target end the tunnels of revoked pairs, for ever."""
    await _for_each("revoked tunnels", targets, partial(_end_revoked, database, link), keep)


async def _end_revoked(database: KeyDatabase, link: TargetLink, target: str) -> None:
    while True:
        try:
            for request_id in await ask(database.tunnels_to_end, target):
                if not await link.end(target, request_id):
                    continue  # it is asked again, and the others meanwhile
                crash.reach("host.end-asked")
                await asyncio.to_thread(database.record_end_asked, target, request_id)
                crash.reach("host.end-recorded")
                log.info("tunnel-end-asked", request_id=request_id.hex(), target=target)
        except (TargetSilentError, SQLAlchemyError) as error:
            log.info("revoked-wait", target=target, reason=str(error))
        await asyncio.sleep(REVOKED_SECONDS)

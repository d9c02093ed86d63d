"""Why a tunnel ended: what Target signed for the traveller, fetched for her when she asks."""

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.database.readers import ask
from carnet.exchange.host import NOT_READY
from host_agent.keydb import KeyDatabase
from host_agent.outcome import Answered, Later, Outcome, Rejected
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

STILL_LIVE = "tunnel-lives"
"""Carnet-Reason where Target knows of no end."""


async def ending_of(database: KeyDatabase, link: TargetLink, request_id: bytes) -> Outcome:
    """Return Target's signed word on the end of a tunnel; nobody's, of one that is unknown."""
    try:
        targets = await ask(database.targets_of, request_id)
        for target in filter(link.knows, targets):
            signed = await link.ending(target, request_id)
            if signed is not None:
                return Answered(signed, "")
    except SQLAlchemyError as error:
        log.warning("database-failed", reason=str(error))
        return Later(NOT_READY)
    except TargetSilentError as error:
        return Later(error.code)
    return Later(STILL_LIVE) if targets else Rejected()

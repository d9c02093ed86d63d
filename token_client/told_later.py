"""Asking on why a tunnel went down, where nobody has said so yet.

Target's operator can end a session while Target's agent is away: what she decided is told
when that is back, and until then nothing lifts the block. Host may be away as well.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from carnet.errors import IPsecError
from carnet.ipsec import block
from token_client.ending import Ending, time_is_over, why_ended
from token_client.known import is_ended, is_meant, is_recorded
from token_client.record import Session

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 1.0
"""How often it is seen that she has ended the session herself, or her time has."""


def told_later(session: Session, sleep: Callable[[float], None] = time.sleep) -> Ending | None:
    """Return what Target says once it does, or that the time is over; None if she ended it."""
    pause = FIRST_PAUSE_SECONDS
    while _waits(session, pause, sleep):
        ending = why_ended(session, lambda: _lives(session), once=True)
        if ending is not None:
            return ending
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    return _over(session)


def time_over(session: Session, sleep: Callable[[float], None] = time.sleep) -> Ending | None:
    """Return that the time is over once it is, where it is known why it went down; else as above.

    What is held back for it is so until then.
    """
    return None if _waits(session, math.inf, sleep) else _over(session)


def _over(session: Session) -> Ending | None:
    """Return that its time is over; None if she has ended it."""
    return replace(time_is_over(session), meant=True) if _lives(session) else None


def _lives(session: Session) -> bool:
    """Tell whether she has not ended the session: by its block, where its record was damaged.

    The block goes first of the two. A packet filter that cannot be asked may have one.
    """
    if is_recorded(session):
        return is_meant(session)
    if is_ended(session) or session.block is None:
        return False
    try:
        return session.name in block.names([session.block])
    except IPsecError:
        return True


def _waits(session: Session, seconds: float, sleep: Callable[[float], None]) -> bool:
    """Let a pause pass; tell whether the session is still meant to live."""
    until = time.monotonic() + seconds
    while _lives(session) and not session.is_over(time.time()):
        left = until - time.monotonic()
        if left <= 0:
            return True
        sleep(min(left, _LOOK_SECONDS))
    return False

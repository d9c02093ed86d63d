"""Asking on why a tunnel went down, where nobody has said so yet.

Target's operator can end a session while Target's agent is away: what she decided is told
when that is back, and until then nothing lifts the block. Host may be away as well.
"""

import math
import time
from collections.abc import Callable

from token_client.ending import Ending, time_is_over, why_ended
from token_client.known import is_recorded
from token_client.sessions import Session

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 1.0
"""How often it is seen that she has ended the session herself, or her time has."""


def told_later(session: Session, sleep: Callable[[float], None] = time.sleep) -> Ending | None:
    """Return what Target says once it does, or that the time is over; None if she ended it."""
    pause = FIRST_PAUSE_SECONDS
    while _waits(session, pause, sleep):
        ending = why_ended(session, lambda: is_recorded(session), once=True)
        if ending is not None:
            return ending
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    if is_recorded(session):
        return time_is_over(session)
    return None


def time_over(session: Session, sleep: Callable[[float], None] = time.sleep) -> Ending | None:
    """Return that the time is over once it is, where it is known why it went down; else as above.

    What is held back for it is so until then.
    """
    if _waits(session, math.inf, sleep) or not is_recorded(session):
        return None
    return time_is_over(session)


def _waits(session: Session, seconds: float, sleep: Callable[[float], None]) -> bool:
    """Let a pause pass; tell whether the session is still meant to live."""
    until = time.monotonic() + seconds
    while is_recorded(session) and not session.is_over(time.time()):
        left = until - time.monotonic()
        if left <= 0:
            return True
        sleep(min(left, _LOOK_SECONDS))
    return False

"""Sessions that are over, and that nobody ends: their agent was killed, or is none.

Their time is over, or somebody has begun to end them and is gone, or failed. Their routes and
policies would be in the way of a new tunnel's.
"""

import time
from collections.abc import Callable

from carnet.errors import IPsecError
from token_client.by_record import Ends
from token_client.closing import end_session
from token_client.ending import time_is_over
from token_client.faults import reason
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore
from token_client.watched import is_watched
from token_client.whole_end import raise_unless_gone

_LEFT = "What was left of the session to {} was ended: {}."
_NOT_WHOLE = (
    "The session to {0}, {1}, could not be ended whole ({2}); `carnet disconnect {0}` tries it"
    " again."
)


def end_what_is_over(driver: Ends, sessions: SessionStore, tell: Callable[[str], None]) -> None:
    """End each as its agent would; what cannot be ended is told, and left."""
    for session in sessions.all():
        target, why = session.target, session.stage.why
        if session.lives and session.is_over(time.time()):
            why = time_is_over(session).sentence
            whose, so = "whose time is over", "its time is over"
        elif _is_left_to_end(session):
            whose, so = "which is to end", "it was to end"
        else:
            continue
        try:
            end_session(driver, sessions, session.name, raise_unless_gone, why)
        except IPsecError as error:
            tell(_NOT_WHOLE.format(target, whose, reason(error)))
        else:
            tell(_LEFT.format(target, so))


def _is_left_to_end(session: Session) -> bool:
    """Tell whether somebody has begun to end it, and no agent goes on with that."""
    return session.stage.is_to_end and not is_watched(memory_directory(), session.name)

"""Sessions whose time is over, and that nobody has ended: their agent was killed, or is none.

Their routes and policies would be in the way of a new tunnel's.
"""

import time
from collections.abc import Callable

from carnet.errors import IPsecError
from token_client.by_record import Ends
from token_client.closing import end_session
from token_client.ending import time_is_over
from token_client.faults import reason
from token_client.sessions import SessionStore
from token_client.whole_end import raise_unless_gone


def end_what_is_over(driver: Ends, sessions: SessionStore, tell: Callable[[str], None]) -> None:
    """End each as its agent would; what cannot be ended is told, and left."""
    for session in sessions.all():
        if not (session.lives and session.is_over(time.time())):
            continue
        why = time_is_over(session).sentence
        try:
            end_session(driver, sessions, session.name, raise_unless_gone, why)
        except IPsecError as error:
            tell(
                f"The session to {session.target}, whose time is over, could not be ended whole"
                f" ({reason(error)}); `carnet disconnect {session.target}` tries it again."
            )
        else:
            tell(f"What was left of the session to {session.target} was ended: its time is over.")

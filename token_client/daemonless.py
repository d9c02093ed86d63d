"""A session whose IPsec daemon is gone: the kernel may carry its tunnel on.

What becomes of the tunnel nobody tells then. Its time and its token are looked after all the
same, and end what the kernel still has.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from carnet.ipsec.driver import Driver
from token_client.ending import Ending, time_is_over
from token_client.known import is_doomed, is_gone, is_known
from token_client.sessions import Session

_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
"""Between looks for a daemon."""
_SAY_SECONDS = 20.0
"""By when one that is only started anew is back."""
_AWAY = (
    "There is no IPsec daemon, so nobody sees what becomes of the tunnel to {}, which may go on;"
    " its time and its token are looked after. Start it (systemctl start strongswan, or ipsec)."
)


def until_there_is_one(
    driver: Driver,
    session: Session,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Ending | None:
    """Return once there is a daemon, or the session is to end; its end if its time is over."""
    waited, pause = 0.0, _PAUSE_SECONDS
    while True:
        # Also at first: whoever comes here has just found none.
        sleep(pause)
        waited, told = waited + pause, waited >= _SAY_SECONDS
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        if session.is_over(time.time()):
            return replace(time_is_over(session), meant=True)
        if not is_known(driver, session) or is_doomed(session) or not is_gone(driver):
            return None
        if waited >= _SAY_SECONDS and not told:
            tell(_AWAY.format(session.target))

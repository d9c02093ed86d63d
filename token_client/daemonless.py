"""A session whose IPsec daemon is gone: the kernel may carry its tunnel on.

What becomes of the tunnel nobody tells then. Its time and its token are looked after all the
same, and end what the kernel still has.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from token_client.ending import Ending, time_is_over
from token_client.known import is_gone, is_known, is_meant, is_to_end
from token_client.record import Session

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
        if not is_known(driver, session) or is_to_end(session) or not is_gone(driver):
            return None
        if waited >= _SAY_SECONDS and not told:
            tell(_AWAY.format(session.target))


def take_out_of_kernel(driver: Driver, session: Session) -> bool:
    """Take out what a daemon left in the kernel once one answers, without the tunnel.

    Returns whether it is out: not where the tunnel stands again, or the session has ended or is
    to end, since whoever ends it takes it out.
    """
    pause = _PAUSE_SECONDS
    while is_meant(session):
        with suppress(IPsecError):
            return _is_out(driver, session)
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    return False


def _is_out(driver: Driver, session: Session) -> bool:
    """Take it out; tell whether it is, or stands. Raises IPsecError where no daemon tells that."""
    stands = any(one.name == session.name and one.established for one in driver.status())
    if is_meant(session) and not stands:
        driver.down(session.name)
        return True
    return False

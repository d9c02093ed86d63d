"""A tunnel that stays where this machine is no more: it moves by itself, or is brought back.

MOBIKE moves it, but not while a message of the daemon's own is unanswered, which goes on from
where it was; and not with every daemon. The kernel tells when addresses and routes change.
"""

import threading
from collections.abc import Callable
from contextlib import suppress

from carnet.errors import IPsecError
from carnet.ipsec.inside.route_changes import RouteChanges

MOVING_SECONDS = 4.0
"""For which it may move by itself."""


def look_on(
    is_left: Callable[[], bool],
    tell: Callable[[], None],
    changes: RouteChanges,
    enough: threading.Event,
) -> None:
    """Look until `changes` are stopped, first at once; `tell` each time that it has stayed.

    That is once until it has moved. The changes are closed then.
    """
    told = False
    while not enough.is_set():
        with suppress(IPsecError):  # whoever watches the daemon hears of it
            if not is_left():
                told = False
            elif not told and not enough.wait(MOVING_SECONDS) and is_left():
                told = True
                tell()
        if not changes.wait():
            break
    changes.close()

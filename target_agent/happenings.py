"""What happened to a tunnel at the IKE daemon, and has not been fed to it yet.

A Client may negotiate faster than Target can look at what comes of it. So of what comes again
and again only the outcome waits, and no more of it than there are kinds.
"""

from carnet.exchange.machine import Event
from carnet.exchange.target import CameAnew, CameUp, Over, WentSilent
from carnet.ipsec.driver import Change

TOLD = (Change.UP, Change.ANEW, Change.DOWN, Change.LOST)
"""What a tunnel is told of."""


def merged(waiting: tuple[Change, ...], change: Change) -> tuple[Change, ...]:
    """Return what waits once this happens too, in its order.

    What its peer closed has ended. What came up and was lost leaves nothing to look at, and one
    that came back is still to be told that it was lost: not every tunnel may come back. That it
    may be another waits alone, for with whatever else happens it is looked at, or there is none.
    """
    if Change.DOWN in waiting or (change is Change.ANEW and waiting):
        return waiting
    if change is Change.UP and Change.LOST in waiting:
        return (Change.LOST, Change.UP)
    return (change,)


def event_of(change: Change, *, may_come_back: bool) -> Event:
    """Return what to feed: a Client that is silent is waited for, where she may come back."""
    if change is Change.UP:
        return CameUp()
    if change is Change.ANEW:
        return CameAnew()
    if change is Change.DOWN:
        return Over("peer-closed")
    return WentSilent() if may_come_back else Over("peer-lost")

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

    What its peer closed has ended. One that comes back is as it was before it was lost, and
    likewise the other way about. That it may be another waits alone: with whatever else happens it
    is looked at, too, or there is nothing to look at.
    """
    if change is Change.ANEW:
        return waiting or (change,)
    if waiting == (Change.ANEW,):
        return (change,)
    if Change.DOWN in waiting or waiting[-1:] == (change,):
        return waiting
    if waiting[-2:-1] == (change,):
        return waiting[:-1]
    return (*waiting, change)


def event_of(change: Change, *, may_come_back: bool) -> Event:
    """Return what to feed: a Client that is silent is waited for, where she may come back."""
    if change is Change.UP:
        return CameUp()
    if change is Change.ANEW:
        return CameAnew()
    if change is Change.DOWN:
        return Over("peer-closed")
    return WentSilent() if may_come_back else Over("peer-lost")

"""What happened to a tunnel at the IKE daemon, and has not been fed to it yet.

A Client may negotiate faster than Target can look at what comes of it. So of what comes again
and again only the outcome waits.
"""

from carnet.exchange.machine import Event
from carnet.exchange.target import CameAnew, CameUp, Over, WentSilent
from carnet.ipsec.driver import Change
from target_agent.live import PEER_CLOSED

TOLD = (Change.UP, Change.ANEW, Change.DOWN, Change.LOST)
"""What a tunnel is told of."""


def merged(waiting: Change | None, change: Change) -> Change:
    """Return what waits once this happens too; None: nothing waited.

    What its peer closed has ended. What came up and was lost leaves nothing to look at, and of
    what was lost and came up again only what stands now counts: in the place of one whom Target
    never saw she may have come anew. That it may be another waits alone, for with whatever else
    happens it is looked at, or there is none.
    """
    if waiting is Change.DOWN or (waiting is not None and change is Change.ANEW):
        return waiting
    return change


def event_of(change: Change, *, may_come_back: bool) -> Event:
    """Return what to feed: a Client that is silent is waited for, where she may come back."""
    if change is Change.UP:
        return CameUp()
    if change is Change.ANEW:
        return CameAnew()
    if change is Change.DOWN:
        return Over(PEER_CLOSED)
    return WentSilent() if may_come_back else Over("peer-lost")

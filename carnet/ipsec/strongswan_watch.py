"""What happens to strongSwan's tunnels, as its daemon tells of it."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.too_many import MOST_AT_ONCE
from carnet.ipsec.vici_link import Events

_IKE_REKEYED = "ike-rekey"
_READ = {
    "child-updown": reports.event,
    "ike-updown": reports.event,
    "child-rekey": reports.renewed,
    "ike-update": reports.renewed,
    _IKE_REKEYED: reports.renewed,
}
"""How the daemon's events are read, by type."""


class Rekeyings:
    """Of the IKE_SAs that are rekeyed, those of which it is told.

    The new one takes over addresses and CHILD_SAs as they are. But the daemon keeps the old one
    until the peer deletes it: where it deletes none there are soon more than there may be.
    """

    def __init__(self) -> None:
        self._untold: Counter[str] = Counter()

    def is_told(self, event: TunnelEvent) -> bool:
        """Tell whether this one is: one of as many as may be there at once."""
        self._untold[event.name] += 1
        told = self._untold[event.name] >= MOST_AT_ONCE
        if told:
            self.forget(event)
        return told

    def forget(self, event: TunnelEvent) -> None:
        """Count that tunnel's from the beginning: it is told of, or gone."""
        self._untold.pop(event.name, None)


class Watches:
    """All who are told of it, by the daemon's VICI socket; they may end from any thread."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._watching: set[Events] = set()
        self._lock = threading.Lock()

    def begin(self) -> Iterator[TunnelEvent]:
        """Yield what happens to tunnels of ours from this call on; see Driver.watch()."""
        events = Events(self._socket, list(_READ))
        with self._lock:
            self._watching.add(events)
        return self._tunnel_events(events)

    def _tunnel_events(self, events: Events) -> Iterator[TunnelEvent]:
        rekeyings = Rekeyings()
        try:
            while True:
                kind, message = events.next_of()
                event = _READ[kind](message)
                if event is None or (kind == _IKE_REKEYED and not rekeyings.is_told(event)):
                    continue
                if event.change in (Change.DOWN, Change.LOST):
                    rekeyings.forget(event)
                yield event
        except OSError:
            return  # the daemon went away, or end() was called
        finally:
            with self._lock:
                self._watching.discard(events)
            events.close()

    def end(self) -> None:
        """End each of them, from whichever thread."""
        with self._lock:
            watching = list(self._watching)
        for events in watching:
            events.stop()

"""What happens to strongSwan's tunnels, as its daemon tells of it."""

import threading
from collections.abc import Iterator
from pathlib import Path

from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import TunnelEvent
from carnet.ipsec.vici_link import Events

_READ = {
    "child-updown": reports.event,
    "ike-updown": reports.event,
    "child-rekey": reports.renewed,
    "ike-update": reports.renewed,
}
"""How the daemon's events are read, by type.

An IKE_SA that is rekeyed is no event: it takes over addresses and CHILD_SAs as they are.
"""


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
        try:
            while True:
                kind, message = events.next_of()
                event = _READ[kind](message)
                if event is not None:
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

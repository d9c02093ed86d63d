"""A tunnel by which nothing comes any more: whether Target has ended it, unheard by this end.

IKE's Delete is one packet. Target waits a moment for a peer that has yet to answer something, and
then ends the tunnel without it; so the IKE daemon here would find out minutes later, by dead-peer
detection. Target's signed word is at Host: so Host is asked, as soon as the tunnel is silent.
"""

import threading
from collections.abc import Callable

from carnet.errors import IPsecError
from carnet.ipsec.driver import TunnelStatus

LOOK_SECONDS = 2.0
"""Between two looks at what came by it, which no event tells."""
QUIET_SECONDS = 8.0
"""The longest pause between them, which grow while nothing is on its way."""
SILENT_SECONDS = 4.0
"""For which nothing comes, though an answer should, until Host is asked for the first time."""
LONGEST_SILENT_SECONDS = 60.0
"""The same for the next times: who has lost the network, or sends one way alone, asks seldom."""


class Silence:
    """What was seen of one tunnel: since when something is on its way and nothing comes."""

    def __init__(self) -> None:
        self._came, self._went = -1, -1
        self._since: float | None = None
        self._patience = SILENT_SECONDS
        self.pause = LOOK_SECONDS
        """Seconds until the next look."""

    def is_suspect(self, live: TunnelStatus | None, now: float) -> bool:
        """Tell whether it is time to ask; `now` is in seconds, of a clock that is never set."""
        longer, self.pause = min(2 * self.pause, QUIET_SECONDS), LOOK_SECONDS
        if live is None or not live.established:
            self._came = -1  # somebody else sees to it
            return False
        came = live.bytes_in != self._came
        if came:
            self._came, self._went = live.bytes_in, live.bytes_out
            self._since, self._patience = None, SILENT_SECONDS
        if live.bytes_out == self._went and not live.unanswered:
            self._since = None
            self.pause = self.pause if came else longer
            return False
        self._since = now if self._since is None else self._since
        if now - self._since < self._patience:
            return False
        self._since, self._patience = now, min(2 * self._patience, LONGEST_SILENT_SECONDS)
        return True


def look_on(
    live: Callable[[], TunnelStatus | None],
    ask: Callable[[], bool],
    clock: Callable[[], float],
    enough: threading.Event,
) -> None:
    """Look until it is `enough`, and ask when the tunnel is silent, or until `ask` returns True."""
    silence = Silence()
    while not enough.wait(silence.pause):
        try:
            suspect = silence.is_suspect(live(), clock())
        except IPsecError:
            continue  # the watch hears of it by itself
        if suspect and ask():
            return

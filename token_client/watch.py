"""Watching over one tunnel and the token that it stands on: one loop over news.

That the tunnel has ended is told by token_client.tunnel_watch, hints that something happened
to the token come from its reader, and an interval makes sure that a hint that was lost
costs half a second at most. `carnet connect --foreground` runs the loop itself, and
the background agent in a process of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import Empty, SimpleQueue

from carnet.durations import format_duration
from carnet.ipsec.driver import Driver
from carnet.token.finding import find_module
from carnet.token.frozen import say_so, unless_frozen
from carnet.token.presence import Lookout, Presence
from carnet.token.readers import LOOK_SECONDS, ReaderWatcher
from softhsm.configuration import use_default
from softhsm.places import cannot_have
from token_client import mtu
from token_client.config import ClientConfig, OnRemoval
from token_client.ending import Ending, time_is_over
from token_client.known import is_to_end
from token_client.record import Session
from token_client.removal import lock_screen
from token_client.tunnel_watch import TunnelWatch

_SOFTHSM = "libsofthsm"
UNSEEN_SECONDS = 10.0
"""For how long the reader may be out of sight, as while pcscd restarts."""
_UNSEEN = (
    "cannot be seen, since the smart-card service is gone or stands still, or another program "
    "has the card"
)


def lookout(config: ClientConfig, session: Session) -> Lookout:
    """Return what keeps an eye on a tunnel's token; raises TokenError without a module."""
    use_default()
    module = find_module(session.module or config.module)
    if module.name.startswith(_SOFTHSM):
        return Lookout(module, session.token, let_go=True, is_away=cannot_have)
    return Lookout(module, session.token, let_go=True, in_reader=True)


class Watch:
    """Watches until the tunnel has to end, or has ended."""

    def __init__(
        self,
        driver: Driver,
        session: Session,
        lookout: Lookout,
        config: ClientConfig,
        tell: Callable[[str], None],
        give_up: Callable[[Ending], int] = lambda _: say_so(),
        announced: threading.Event | None = None,
    ) -> None:
        """Watch over a session; `give_up` does what is done when run() returns.

        Where the PC/SC service stands still and run() cannot return: on another thread, and
        the process ends with the exit status that it returns. `announced` is set once the
        session's end has been announced, by whichever watch.
        """
        self._give_up = give_up
        self._ending: Ending | None = None
        self._driver = driver
        self._session = session
        self._lookout = lookout
        self._config = config
        self._tell = tell
        self._announced = announced or threading.Event()
        self._news: SimpleQueue[Ending | Exception | None] = SimpleQueue()
        """What became of the tunnel, or a hint that something happened to the token."""
        self._gone = False
        """The token was pulled, and that was acted upon."""
        self._unseen_since: float | None = None
        self._is_down: Callable[[], bool] = lambda: False
        """Tells whether the tunnel is down, while it is asked why or brought back."""

    def run(self) -> Ending:
        """Return when the tunnel has to end, or went down; raises IPsecError."""
        tunnel = TunnelWatch(
            self._driver, self._session, self._tell, self._news.put, resume=self._config.resume
        )
        self._is_down = lambda: tunnel.is_down
        tunnel.start()
        try:
            with mtu.kept(self._driver, self._session, self._tell), self._looking():
                ending = self._ending = self._loop()
            # Host may still be asked why the tunnel went; by now nothing else tells of it.
            return replace(ending, meant=ending.meant or bool(tunnel.meant))
        finally:
            tunnel.stop()

    def until_told(
        self, ask: Callable[[], Ending | None], *, is_down: Callable[[], bool] = lambda: True
    ) -> Ending | None:
        """Look after the token on, while it is asked why the tunnel went; return what is told.

        `ask` asks until somebody says so, or she has ended the session, which is None; it has a
        thread of its own. A token that is pulled meanwhile may be the end, too. `is_down` tells
        whether the tunnel is known to be down: else the session's end is announced.
        """
        told: list[Ending | None] = []

        def asking() -> None:
            try:
                told.append(ask())
                self._ending = told[0]
                self._news.put(None)
            except Exception as error:  # noqa: BLE001  raised by whoever hears of it
                self._news.put(error)

        self._ending, self._is_down = None, is_down
        threading.Thread(target=asking, name="asking on", daemon=True).start()
        with self._looking():
            while not told:
                if not is_down():
                    self._announce_its_end()
                ending = self._next() or self.look()
                if ending is not None:
                    return ending
        return told[0]

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Have hints come that something happened to the token."""
        with unless_frozen(self._cannot_look), ReaderWatcher(lambda: self._news.put(None)):
            yield

    def _cannot_look(self) -> int | None:
        """Take a token that nobody can look at for gone; None if the tunnel stays all the same."""
        ending = self._ending or self.give_up_looking()
        return None if ending is None else self._give_up(ending)

    def give_up_looking(self) -> Ending | None:
        """Take the token for gone, since nobody can look at it; return as look() does."""
        return self._is_gone(_UNSEEN)

    def _loop(self) -> Ending:
        while True:
            ending = self._next() or self.look() or self._look_at_the_clock()
            ending = ending or self._look_at_the_record()
            if ending is not None:
                return ending

    def _next(self) -> Ending | None:
        """Wait for news, for a moment; raises what kept the tunnel from being watched."""
        try:
            news = self._news.get(timeout=LOOK_SECONDS)
        except Empty:
            return None
        if isinstance(news, Exception):
            raise news
        return news

    def _look_at_the_clock(self) -> Ending | None:
        """Announce the end of the session once; see to it, where Target did not."""
        if self._session.is_over(time.time()):
            return time_is_over(self._session)
        self._announce_its_end()
        return None

    def _announce_its_end(self) -> None:
        now, target = time.time(), self._session.target
        if self._session.ends_soon(now) and not self._announced.is_set():
            self._announced.set()
            left = format_duration(self._session.seconds_left(now))
            self._tell(
                f"The tunnel to {target} ends in {left}; run `carnet connect` for a new one."
            )

    def _look_at_the_record(self) -> Ending | None:
        """See whether a command has begun to end it that could not go on with that."""
        if is_to_end(self._session):
            return Ending(f"The tunnel to {self._session.target} was ended by another command.")
        return None

    def look(self) -> Ending | None:
        """Look for the token once; return why the tunnel has to end, if it has to."""
        presence = self._lookout.look()
        if presence is not Presence.UNSEEN:
            self._unseen_since = None
        if presence is Presence.HERE:
            self._is_here()
            return None
        if presence is Presence.GONE:
            return self._is_gone("was pulled out")
        return self._is_unseen()

    def _is_here(self) -> None:
        if self._gone:
            self._tell(f"Token {self._session.token_label} is back.")
        self._gone = False

    def _is_unseen(self) -> Ending | None:
        """Give the PC/SC service time to restart; then nobody knows where the token is."""
        now = time.monotonic()
        if self._unseen_since is None:
            self._unseen_since = now
        if now - self._unseen_since < UNSEEN_SECONDS:
            return None
        return self._is_gone(_UNSEEN)

    def _is_gone(self, how: str) -> Ending | None:
        """Do once what the configuration says."""
        if self._gone:
            return None
        self._gone = True
        token, target = self._session.token_label, self._session.target
        stays = f"the tunnel to {target} " + (
            "is down, its session stays" if self._is_down() else "stays"
        )
        if self._config.on_removal is OnRemoval.KEEP:
            self._tell(f"Token {token} {how}; {stays}, as configured.")
            return None
        if self._config.on_removal is OnRemoval.LOCK:
            failure = lock_screen(self._config.lock_command)
            if failure is None:
                self._tell(f"Token {token} {how}; screen locked, {stays}.")
                return None
            how = f"{how} and the screen cannot be locked ({failure})"
        return Ending(
            f"Token {token} {how}, so the tunnel to {target} was ended; "
            f"plug it in and run `carnet connect` for a new one.",
            pulled=True,
        )

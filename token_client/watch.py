"""Watching over one tunnel and the token that it stands on: one loop over events.

What happens to the tunnel comes from the IPsec daemon, hints that something happened
to the token come from its reader, and an interval makes sure that a hint that was lost
costs half a second at most. `carnet connect --foreground` runs the loop itself, and
the background agent in a process of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue

from carnet.durations import format_duration
from carnet.errors import HelperAwayError, IKERefusedError, IKEUnprovenError, IPsecError
from carnet.ipsec.driver import Change, Driver, TunnelEvent, TunnelStatus
from carnet.token.frozen import say_so, unless_frozen
from carnet.token.module import find_module
from carnet.token.presence import Lookout, Presence
from carnet.token.readers import LOOK_SECONDS, ReaderWatcher
from softhsm.configuration import use_default
from softhsm.places import cannot_have
from token_client import mtu
from token_client.config import ClientConfig, OnRemoval
from token_client.ending import TIME_IS_OVER, why_ended
from token_client.known import is_known
from token_client.memory import memory_directory
from token_client.patience import until_the_helper_is_back
from token_client.removal import lock_screen
from token_client.returning import ANOTHER, bring_back, end_another
from token_client.sessions import Session, SessionStore

_SOFTHSM = "libsofthsm"
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0
"""Between two tries to come back; each may leave Target with half a negotiation, and of
those a daemon takes few from one address."""
UNSEEN_SECONDS = 10.0
"""For how long the reader may be out of sight, as while pcscd restarts."""
_UNSEEN = (
    "cannot be seen, since the smart-card service is gone or stands still, or another program "
    "has the card"
)


class Event(Enum):
    """What the loop wakes for."""

    LOOK = auto()
    """Something may have happened to the token."""
    LOST = auto()
    """Target is silent."""
    CHANGED = auto()
    """The tunnel, or a part of it, came up."""
    ANOTHER = auto()
    """It came up as another than was agreed, and carnet-helper has ended it."""
    DOWN = auto()
    """The tunnel was ended, unless another IKE_SA carries it."""
    GONE = auto()
    """The daemon that carries it is gone."""
    HEARD = auto()
    """Whoever tells of the tunnel was away, and tells again."""


_HAPPENED = {
    Change.UP: Event.CHANGED,
    Change.ANEW: Event.CHANGED,
    Change.ANOTHER: Event.ANOTHER,
    Change.DOWN: Event.DOWN,
    Change.LOST: Event.LOST,
}


@dataclass(frozen=True)
class Ending:
    """Why watching is over: the token was pulled, the session is over, or the tunnel went down."""

    sentence: str
    pulled: bool
    over: bool = False
    """The session is over, by Target's word or its time: nothing of it is to be left."""


def lookout(config: ClientConfig, session: Session) -> Lookout:
    """Return what keeps an eye on a tunnel's token; raises TokenError without a module."""
    use_default()
    module, serial = find_module(session.module or config.module), session.token_serial
    if module.name.startswith(_SOFTHSM):
        return Lookout(module, serial, let_go=True, is_away=cannot_have)
    return Lookout(module, serial, let_go=True)


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
    ) -> None:
        """Watch over a session; `give_up` does what is done when run() returns.

        Where the PC/SC service stands still and run() cannot return: on another thread, and
        the process ends with the exit status that it returns.
        """
        self._give_up = give_up
        self._ending: Ending | None = None
        self._driver = driver
        self._session = session
        self._lookout = lookout
        self._config = config
        self._tell = tell
        self._announced = False
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._finished = threading.Event()
        self._gone = False
        """The token was pulled, and that was acted upon."""
        self._unseen_since: float | None = None
        self._lost = False
        """Target was silent, and the tunnel has not come back yet."""
        self._lost_told: set[str] = set()
        """Why it has not come back, as far as it was told."""
        self._pause = FIRST_PAUSE_SECONDS
        self._next_try = 0.0

    def run(self) -> Ending:
        """Return when the tunnel has to end, or went down; raises IPsecError."""
        changes = self._listen()
        following = threading.Thread(target=self._follow, args=(changes,), daemon=True)
        following.start()
        try:
            with suppress(HelperAwayError):
                gone = self._ask()
                if gone is not None:
                    return gone
            with (
                mtu.kept(self._session, self._tell),
                unless_frozen(self._cannot_look),
                ReaderWatcher(lambda: self._events.put(Event.LOOK)),
            ):
                ending = self._ending = self._loop()
            return ending
        finally:
            self._finished.set()
            self._driver.close()
            following.join()

    def _cannot_look(self) -> int | None:
        """Take a token that nobody can look at for gone; None if the tunnel stays all the same."""
        ending = self._ending or self.give_up_looking()
        return None if ending is None else self._give_up(ending)

    def give_up_looking(self) -> Ending | None:
        """Take the token for gone, since nobody can look at it; return as look() does."""
        return self._is_gone(_UNSEEN)

    def _follow(self, changes: Iterator[TunnelEvent] | None) -> None:
        """Have the loop hear of the tunnel, until the daemon is gone.

        The end of what carnet-helper tells is neither: it is called until it answers again.
        """
        with suppress(IPsecError):
            while True:
                try:
                    self._hear(changes)
                    break
                except HelperAwayError:
                    changes = until_the_helper_is_back(self._driver.watch, self._finished)
                if self._finished.is_set():
                    self._driver.close()
                self._events.put(Event.HEARD)
        self._events.put(Event.GONE)

    def _listen(self) -> Iterator[TunnelEvent] | None:
        """Return what happens from now on; None where the helper is away. Raises IPsecError."""
        with suppress(HelperAwayError):
            return self._driver.watch()
        return None

    def _hear(self, changes: Iterator[TunnelEvent] | None) -> None:
        """Return when the daemon is gone; raises HelperAwayError if nobody tells of it."""
        if changes is None:
            raise HelperAwayError("carnet-helper does not answer.")
        for event in changes:
            if event.name == self._session.name:
                self._events.put(_HAPPENED[event.change])

    def _ask(self) -> Ending | None:
        """Ask what has become of the tunnel while nobody watched; return why it has ended.

        Raises IPsecError.
        """
        live = self._live()
        if live is not None and live.established:
            return self._end_another(live)
        if self._session.name not in self._driver.resumable():
            return self._went_down()
        self._events.put(Event.LOST)
        return None

    def _live(self) -> TunnelStatus | None:
        """Return what there is of the tunnel, which may be less than the whole."""
        return next((one for one in self._driver.status() if one.name == self._session.name), None)

    def _end_another(self, live: TunnelStatus | None) -> Ending | None:
        """End what is another than was agreed, and return why."""
        try:
            if live is not None:
                end_another(self._driver, self._session, live)
        except IKERefusedError as error:
            return Ending(error.sentence, pulled=False)
        return None

    def _loop(self) -> Ending:
        while True:
            event = self._next()
            self._lost = self._lost or event is Event.LOST
            ending = self._heard(event) or self.look() or self._look_at_the_clock()
            ending = ending or (self._come_back() if self._may_try_now() else None)
            if ending is not None:
                return ending

    def _heard(self, event: Event) -> Ending | None:
        """Look at what came of the tunnel; return why it has ended, if so. Raises IPsecError."""
        if event is Event.GONE:
            return self._went_down()
        if event is Event.ANOTHER:
            return Ending(ANOTHER.format(self._session.target), pulled=False)
        if event is Event.HEARD:
            return self._ask_anew()
        if event in (Event.DOWN, Event.CHANGED):
            self._wait_for_leave()
        with suppress(HelperAwayError):  # it is asked anew when that is back
            if event is Event.DOWN:
                return self._went_down_unless_it_stands()
            if event is Event.CHANGED:
                return self._end_another(self._live())
        return None

    def _went_down_unless_it_stands(self) -> Ending | None:
        """Tell the end of the tunnel from that of an IKE_SA, whose place another has taken.

        Where it is lost, what ended is a try to come back.
        """
        if self._lost:
            return None
        try:
            live = self._live()
        except HelperAwayError:
            raise
        except IPsecError:
            live = None
        stands = live is not None and live.established
        return self._end_another(live) if stands else self._went_down()

    def _ask_anew(self) -> Ending | None:
        """Ask as the helper is back; where it, or its daemon, goes again, that is told."""
        with suppress(IPsecError):
            ending = self._ask()
            if ending is None:
                mtu.fit(self._session)
            return ending
        return None

    def _may_try_now(self) -> bool:
        return self._lost and time.monotonic() >= self._next_try

    def _come_back(self) -> Ending | None:
        """Try once to negotiate anew, while the session lives; return why it never can be.

        Target may be silent, or half silent, for long. A refusal is the end of it where Target
        signs that, or where it is this machine that lacks something.
        """
        self._wait_for_leave()
        if not self._config.resume:
            return self._went_down()
        try:
            bring_back(self._driver, self._session)
        except HelperAwayError:
            return None
        except IKERefusedError as error:
            return self._went_down(error.sentence)
        except IKEUnprovenError:
            self._try_later("says no, and does not prove to be it")
            return self._told_over()
        except IPsecError:
            self._try_later("is silent")
            return None
        self._tell(f"The tunnel to {self._session.target} is back.")
        self._lost = False
        self._lost_told.clear()
        self._pause = FIRST_PAUSE_SECONDS
        return None

    def _try_later(self, why: str) -> None:
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        if why not in self._lost_told:
            self._tell(f"Target {self._session.target} {why}; the tunnel comes back with it.")
        self._lost_told.add(why)

    def _next(self) -> Event:
        try:
            return self._events.get(timeout=LOOK_SECONDS)
        except Empty:
            return Event.LOOK

    def _went_down(self, why: str | None = None) -> Ending:
        """Return why the tunnel is down, having seen to it that the daemon brings none back."""
        self._leave_nothing()
        return self._told() or Ending(
            why
            or f"The tunnel to {self._session.target} went down, and Target does not say why; "
            f"ask its operator, or run `carnet connect` for a new one.",
            pulled=False,
        )

    def _told_over(self) -> Ending | None:
        told = self._told()
        if told is not None:
            self._leave_nothing()
        return told

    def _leave_nothing(self) -> None:
        """Have the daemon forget what it could negotiate anew by itself, as far as it is there."""
        with suppress(IPsecError):
            if self._session.name in self._driver.resumable():
                self._driver.down(self._session.name)

    def _told(self) -> Ending | None:
        """Return what Target has signed of the session's end; None where it says nothing."""
        told = why_ended(self._session, self._is_asked_for)
        return Ending(told.sentence, pulled=False, over=told.over) if told else None

    def _wait_for_leave(self) -> None:
        """Let `carnet disconnect` end what it is ending: it takes leave of Target by the tunnel."""
        SessionStore(memory_directory()).wait_for_leave(self._session.name)

    def _is_asked_for(self) -> bool:
        """Tell whether anybody still wants to know: not after `carnet disconnect`."""
        return memory_directory() is None or is_known(self._driver, self._session)

    def _look_at_the_clock(self) -> Ending | None:
        """Announce the end of the session once; see to it, where Target did not."""
        now, target = time.time(), self._session.target
        if self._session.is_over(now):
            return Ending(f"The tunnel to {target} has ended: {TIME_IS_OVER}.", False, over=True)
        if self._session.ends_soon(now) and not self._announced:
            self._announced = True
            left = format_duration(self._session.seconds_left(now))
            self._tell(
                f"The tunnel to {target} ends in {left}; run `carnet connect` for a new one."
            )
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
        if self._config.on_removal is OnRemoval.KEEP:
            self._tell(f"Token {token} {how}; the tunnel to {target} stays, as configured.")
            return None
        if self._config.on_removal is OnRemoval.LOCK:
            failure = lock_screen(self._config.lock_command)
            if failure is None:
                self._tell(f"Token {token} {how}; screen locked, the tunnel to {target} stays.")
                return None
            how = f"{how} and the screen cannot be locked ({failure})"
        return Ending(
            f"Token {token} {how}, so the tunnel to {target} was ended; "
            f"plug it in and run `carnet connect` for a new one.",
            pulled=True,
        )
